"""What the regression guard measures: short samples, by the benchmarks' own functions.

Live ones: each engine stands in a pair of hosts of its own all the time, and a sample is only its traffic.
Others: the codec, and replays in this process, in CPU time; what the start of a replay takes is left out by
the difference of a long and a short one.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy
from numpy.typing import NDArray

from layer45.fastpath.symbol_block import use_isal
from layer45.replay import replay
from perf import captures, ends, fec, iperf3, lab, latency, packets, tcp_capture
from perf.serving import DROP, MATCH, SCRAMBLE, TAG, Served
from tests.netns.topology import Hosts, two_hosts

LOAD = lab.Load(packets=20_000, rate=40_000)
ROUND_TRIPS, STREAM_S = 2000, 1
REPLAYED, SHORT = 200_000, 20_000  # packets
SEGMENTS, SHORT_SEGMENTS, SEGMENT_BYTES = 40_000, 4_000, 200  # of TCP
FEW_FLOWS, MANY_FLOWS = 64, 100_000
INSTANCES = 16
CODE, SYMBOL_BYTES, CODEC_MS = (20, 4), 1200, 20.0
COPIES = 300
COPIED_BYTES, RECORD_BYTES = 94 * 1024, 94  # a record of a capture: a 64-byte packet with its headers

Sample = Callable[[], float]
Values = Mapping[str, float]


@dataclass(frozen=True)
class Figure:
    """A ratio of two samples of one round. less: a third, taken off the part, which is of `parts` such."""

    name: str
    part: str
    whole: str
    more_is_better: bool = False
    less: str = ""
    parts: int = 1

    @property
    def needs(self) -> set[str]:
        """Samples, by name."""
        return {self.part, self.whole, *([self.less] if self.less else [])}

    def of(self, values: Values) -> float:
        """Of a round that has all it needs."""
        part = values[self.part] - (values[self.less] if self.less else 0.0)
        return part / self.parts / values[self.whole]


FIGURES = (
    Figure("engine CPU, empty chain / C loop", "ours, empty", "C loop"),
    Figure("engine CPU, tag / C loop", "ours, tag", "C loop"),
    Figure("engine CPU, tag + scramble + drop / C loop", "ours, all", "C loop"),
    Figure("engine CPU, empty chain / Python callback", "ours, empty", "Python callback"),
    Figure("round trip, empty chains / C loops", "round trip, ours", "round trip, C loop"),
    Figure("TCP, empty chain / direct", "TCP, empty", "TCP, direct", more_is_better=True),
    Figure("TCP, scramble / direct", "TCP, scramble", "TCP, direct", more_is_better=True),
    Figure("replay, empty chain / copy and sum", "replay, empty", "copy and sum"),
    Figure("replay, tag / empty chain", "replay, tag", "replay, empty"),
    Figure("replay, scramble / empty chain", "replay, scramble", "replay, empty"),
    Figure("replay, drop / empty chain", "replay, drop", "replay, empty"),
    Figure("replay, duplicate / empty chain", "replay, duplicate", "replay, empty"),
    Figure("replay, fec / empty chain", "replay, fec", "replay, empty"),
    Figure("replay, impair / empty chain", "replay, impair", "replay, empty"),
    Figure("replay, TCP stream_tag / empty chain", "replay, TCP stream_tag", "replay, empty"),
    Figure("replay, TCP option_tag / empty chain", "replay, TCP option_tag", "replay, empty"),
    Figure("replay, TCP scramble / empty chain", "replay, TCP scramble", "replay, empty"),
    Figure(
        "a further instance / a packet of an empty chain",
        f"replay, {INSTANCES} times drop", "replay, empty", less="replay, empty", parts=INSTANCES,
    ),
    Figure(f"replay, {MANY_FLOWS} flows / 1", "replay, many flows", "replay, one flow"),
    Figure("fec, encode a block / copy it", "encode", "copy a block"),
)  # fmt: skip


@contextlib.contextmanager
def everything(folder: Path) -> Iterator[dict[str, Sample]]:
    """All samples by name, with all that they need standing; files go to the folder."""
    with contextlib.ExitStack() as stack:
        yield {
            **_engines(stack),
            **_round_trips(stack),
            **_streams(stack),
            **replays(folder),
            **codec(),
        }


def _engines(stack: contextlib.ExitStack) -> dict[str, Sample]:
    """Microseconds of engine for a 64-byte packet."""
    found: dict[str, Sample] = {}
    every = packets.engines()
    for name in ("C loop", "Python callback", "ours, empty", "ours, tag", "ours, all"):
        hosts = stack.enter_context(two_hosts())
        sink = lab.DeviceSink(hosts)
        served = stack.enter_context(every[name](hosts))
        found[name] = partial(_engine_us, hosts, sink, served)
    return found


def _engine_us(hosts: Hosts, sink: lab.Sink, served: Served) -> float:
    return packets.sample(hosts, sink, lambda _: contextlib.nullcontext(served), LOAD)["engine_us"]


def _pairs(
    stack: contextlib.ExitStack, engines: Mapping[str, ends.Engine], traffic: ends.Traffic
) -> Iterator[tuple[str, Hosts]]:
    for name, engine in engines.items():
        hosts = stack.enter_context(two_hosts())
        stack.enter_context(engine(hosts, traffic))
        yield name, hosts


def _round_trips(stack: contextlib.ExitStack) -> dict[str, Sample]:
    """Microseconds of the median one."""
    engines = {"round trip, ours": ends.ours("[]"), "round trip, C loop": ends.c_loop()}
    found: dict[str, Sample] = {}
    for name, hosts in _pairs(stack, engines, ends.Traffic(("udp",), (latency.ECHO_PORT,))):
        stack.enter_context(latency.echo(hosts.b))
        found[name] = partial(_round_trip, hosts)
    return found


def _round_trip(hosts: Hosts) -> float:
    found = latency.ask(hosts, ROUND_TRIPS)
    if found["lost"]:
        raise lab.BenchmarkError(f"{found['lost']} round trips found no answer")
    return float(found["p50_ns"]) / 1000


def _streams(stack: contextlib.ExitStack) -> dict[str, Sample]:
    """Gbit/s of one TCP stream."""
    chains = {"TCP, empty": "[]", "TCP, scramble": f"[{SCRAMBLE}]"}
    engines = {"TCP, direct": ends.nobody} | {name: ends.ours(chain) for name, chain in chains.items()}
    usual = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    load = iperf3.Load(congestion=usual)
    pairs = _pairs(stack, engines, ends.Traffic(("tcp",), (iperf3.PORT,)))
    return {name: partial(_stream, hosts, load) for name, hosts in pairs}


def _stream(hosts: Hosts, load: iperf3.Load) -> float:
    with iperf3.server(hosts.b):
        received = iperf3.client(hosts, load, STREAM_S)["sum_received"]
    return float(received["bits_per_second"]) / 1e9


UDP_CHAINS = {
    "empty": "[]",
    "tag": f"[{TAG}]",
    "scramble": f"[{SCRAMBLE}]",
    "drop": f"[{DROP}]",
    "duplicate": '[{ module = "duplicate" }]',
    "fec": '[{ module = "fec" }]',
    "impair": '[{ module = "impair" }]',
    f"{INSTANCES} times drop": f"[{', '.join([DROP] * INSTANCES)}]",
}
TCP_CHAINS = {
    "TCP stream_tag": '[{ module = "stream_tag" }]',
    "TCP option_tag": '[{ module = "option_tag", id = "host-7", on = "all" }]',
    "TCP scramble": f"[{SCRAMBLE}]",
}


def replays(folder: Path) -> dict[str, Sample]:
    """Nanoseconds of CPU for a packet: of 64 bytes, or of TCP."""
    few = _captures(folder / "few", captures.in_turn(FEW_FLOWS, REPLAYED), SHORT)
    part = numpy.frombuffer(few[1].read_bytes()[24 : 24 + COPIED_BYTES], numpy.uint16)
    return {
        "copy and sum": partial(_copied, part),
        **dict(_through(folder, UDP_CHAINS, MATCH, few)),
        **dict(_through(folder, TCP_CHAINS, MATCH.replace("udp", "tcp"), _connection(folder))),
        **dict(_flows(folder)),
    }


def _through(
    folder: Path, chains: Mapping[str, str], match: str, sources: tuple[Path, Path]
) -> Iterator[tuple[str, Sample]]:
    for name, chain in chains.items():
        config = lab.write_config(folder / name.replace(" ", "-"), chain, match)
        yield f"replay, {name}", partial(_per_packet, config, sources)


def _flows(folder: Path) -> Iterator[tuple[str, Sample]]:
    """All are open before those packets that count."""
    roomy = lab.write_config(folder / "flows", "[]", MATCH)
    with (roomy / "layer45.toml").open("a") as file:
        file.write(f"max_flows = {2 * MANY_FLOWS}\n")
    for name, flows in (("many flows", MANY_FLOWS), ("one flow", 1)):
        order = numpy.concatenate((captures.in_turn(flows, MANY_FLOWS), captures.at_random(flows, REPLAYED)))
        sources = _captures(folder / name, order, MANY_FLOWS)
        yield f"replay, {name}", partial(_per_packet, roomy, sources)


def _connection(folder: Path) -> tuple[Path, Path]:
    """The first segments of a TCP connection, and all."""
    found = folder / "tcp-short.pcap", folder / "tcp-long.pcap"
    for path, segments in zip(found, (SHORT_SEGMENTS, SEGMENTS), strict=True):
        tcp_capture.write(path, segments, SEGMENT_BYTES)
    return found


def _captures(path: Path, order: captures.Order, short: int) -> tuple[Path, Path]:
    """Its first packets, and all of them."""
    path.mkdir()
    captures.write(path / "short.pcap", order[:short])
    captures.write(path / "long.pcap", order)
    return path / "short.pcap", path / "long.pcap"


def _per_packet(config: Path, sources: tuple[Path, Path]) -> float:
    (less, few), (more, many) = (_replayed(config, source) for source in sources)
    return (more - less) / (many - few)


def _replayed(config: Path, source: Path) -> tuple[int, int]:
    """Nanoseconds of this thread, and packets."""
    begun = time.thread_time_ns()
    done = replay(config, lab.POLICY, "egress", source, "/dev/null")
    took = time.thread_time_ns() - begun
    if done.customized != done.read or done.written < done.read:
        raise lab.BenchmarkError(f"{source.name}: of {done.read} packets {done.customized} were customized")
    return took, done.read


def _copied(part: NDArray[numpy.uint16]) -> float:
    """Nanoseconds that it takes to copy RECORD_BYTES and to sum the copy, in the nearer caches."""
    begun = time.thread_time_ns()
    for _ in range(COPIES):
        part.copy().sum(dtype=numpy.uint64)
    return (time.thread_time_ns() - begun) * RECORD_BYTES / (COPIES * part.nbytes)


def codec() -> dict[str, Sample]:
    """Microseconds of CPU for a block."""
    block = fec.make_blocks(*CODE, SYMBOL_BYTES)[:1]
    case = fec.Case(*CODE, work="encode", isal=use_isal(True), cold=False)
    source = numpy.zeros(CODE[0] * SYMBOL_BYTES, numpy.uint8)
    return {
        "encode": partial(fec.us_per_block, case, block, CODEC_MS),
        "copy a block": partial(_copies, source),
    }


def _copies(source: NDArray[numpy.uint8]) -> float:
    target = numpy.empty_like(source)
    begun = time.thread_time_ns()
    for _ in range(COPIES):
        numpy.copyto(target, source)
    return (time.thread_time_ns() - begun) / COPIES / 1000
