"""What remains of a link's loss behind several codes, measured in replays.

Each point is a capture of one flow that goes out by the policy, over a link with independent losses, and in
again, as with `layer45 replay --through 'impair loss_percent=…'`. Engine and modules are those of live
packets, the clock is the capture's; the same seeds give the same points.
"""

import struct
from dataclasses import dataclass
from itertools import count
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

from layer45.demo_hosts import within
from layer45.loss_model import independent_residual, lost_of_block, lost_within
from layer45.replay import replay_through

CODES = (10, 3), (20, 4), (32, 8)  # (k, m)
LOSSES_PERCENT = 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20
DATAGRAMS = 120_000
PAYLOAD_BYTES = 32  # what is lost does not depend on it
INTERVAL_NS = 100_000
CERTAINTY = 0.9999
RAW_IP, NANOSECOND_MAGIC = 101, 0xA1B23C4D


@dataclass(frozen=True)
class Point:
    """Of `sources` datagrams, `lost` neither arrived nor were made anew, on a link with that loss."""

    k: int
    m: int
    loss: float
    sources: int
    lost: int

    @property
    def residual(self) -> float:
        return self.lost / self.sources

    @property
    def theory(self) -> float:
        """The residual to expect."""
        return independent_residual(self.loss, self.k, self.m)

    def bounds(self, certainty: float) -> tuple[int, int]:
        """How many theory lets be lost."""
        return lost_within(lost_of_block(self.loss, self.k, self.m), ceil(self.sources / self.k), certainty)


def measure() -> list[Point]:
    """Every code at every loss, each with losses of its own."""
    seeds = count(1)
    with TemporaryDirectory(prefix="layer45-demo-") as name:
        folder = Path(name)
        write_capture(folder / "in.pcap")
        configs = {code: write_policy(folder / "{}-{}".format(*code), *code) for code in CODES}
        return [
            replayed(configs[code], *code, percent / 100, next(seeds))
            for code in CODES
            for percent in LOSSES_PERCENT
        ]


def write_policy(config: Path, k: int, m: int) -> Path:
    (config / "policies").mkdir(parents=True)
    chain = f'[ {{ module = "fec", source_symbols = {k}, repair_symbols = {m} }} ]'
    text = f'[policy.demo]\nmatch = {{ protocol = "udp" }}\nchain = {chain}\n'
    (config / "policies" / "demo.toml").write_text(text)
    return config


def write_capture(path: Path) -> None:
    """One flow, so fast that no block's deadline comes."""
    from scapy.layers.inet import IP, UDP

    packet = bytes(IP(flags="DF") / UDP(dport=5201) / bytes(PAYLOAD_BYTES))
    with path.open("wb", buffering=1 << 20) as file:
        file.write(struct.pack("=IHHiIII", NANOSECOND_MAGIC, 2, 4, 0, 0, 65535, RAW_IP))
        for number in range(DATAGRAMS):
            seconds, nanoseconds = divmod(number * INTERVAL_NS, 1_000_000_000)
            file.write(struct.pack("=IIII", seconds, nanoseconds, len(packet), len(packet)) + packet)


def replayed(config: Path, k: int, m: int, loss: float, seed: int) -> Point:
    """The capture over a link with so much loss."""
    folder, network = config.parent, [f"impair loss_percent={100 * loss:g}"]
    passes = replay_through(config, "demo", network, folder / "in.pcap", folder / "out.pcap", seed=3 * seed)
    sent, arrived = (passes[at].instances[0]["counters"] for at in (0, 2))
    return Point(k, m, loss, sent["sources"], sent["sources"] - arrived["arrived"] - arrived["recovered"])


def judge(points: list[Point]) -> None:
    """Raises DemoError for a point that theory does not have."""
    for point in points:
        least, most = point.bounds(CERTAINTY)
        what = f"replay of ({point.k}, {point.m}) at {point.loss:.0%}: datagrams lost behind the code"
        within(what, point.lost, least, most)
