"""How fast does `layer45 replay` put a capture through one module, and does its memory stay flat?

    python -m perf.replay [--rounds 5] [--packets 1000000]

No root. 64-byte UDP packets, from a file in memory (/dev/shm) to a file in memory. Two lengths are replayed,
one a tenth of the other: the difference between them is the replay itself, without the start of the program.
Memory is the peak of the process, for both lengths.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf import lab, record
from perf.serving import DROP, MATCH, SCRAMBLE, TAG

MEMORY = Path("/dev/shm")
FLOWS = 64
TARGET_PACKETS_PER_S = 1_000_000
CHAINS = {
    "tag": f"[{TAG}]",
    "scramble": f"[{SCRAMBLE}]",
    "drop": f"[{DROP}]",
}


def packet(flow: int) -> bytes:
    """A 64-byte IPv4 packet of one of FLOWS flows, behind an Ethernet header; no UDP checksum (0, legal)."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 64, 0, 0, 64, 17, 0, b"\x0a\x4d\0\1", b"\x0a\x4d\0\2")
    total = sum(struct.unpack("!10H", ip))
    checksum = 0xFFFF - (total + (total >> 16) & 0xFFFF)
    ip = ip[:10] + checksum.to_bytes(2) + ip[12:]
    udp = struct.pack("!HHHH", 40000 + flow, lab.PORT, 44, 0)
    return bytes(12) + b"\x08\0" + ip + udp + b"x" * 36


def write_capture(path: Path, packets: int) -> None:
    """A pcap file with that many packets, ten microseconds apart."""
    frames = [packet(flow) for flow in range(FLOWS)]
    with path.open("wb", buffering=1 << 20) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number in range(packets):
            frame = frames[number % FLOWS]
            seconds, micros = divmod(number * 10, 1_000_000)
            file.write(struct.pack("<IIII", seconds, micros, len(frame), len(frame)) + frame)


@dataclass(frozen=True)
class Replayed:
    """What one `layer45 replay` took, start and end included, and its summary.

    peak_kb: of memory, or this process's own where that is more.
    """

    wall_s: float
    cpu_s: float
    peak_kb: int
    summary: dict[str, Any]

    @property
    def packets(self) -> int:
        """Packets of the capture."""
        return int(self.summary["read"])


def replay(config: Path, source: Path, target: Path) -> Replayed:
    """Egress through the policy of lab.write_config. Raises BenchmarkError: it failed, or lost a packet."""
    words = ["replay", "--json", "--config", config, "--policy", lab.POLICY, "--direction", "egress"]
    began = time.perf_counter()
    process = subprocess.Popen(lab.layer45(*map(str, (*words, source, target))), stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as said:
        text = said.read()
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise lab.BenchmarkError(f"layer45 replay ended with status {process.returncode}")
    found = Replayed(took_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, json.loads(text))
    if found.summary["written"] != found.summary["read"]:
        raise lab.BenchmarkError(f"layer45 replay: not all packets came out: {found.summary}")
    return found


def packets_in(path: Path, captured_bytes: int) -> int:
    """Packets in a pcap file whose packets all have one length; fails if they do not fill the file."""
    count, rest = divmod(path.stat().st_size - 24, 16 + captured_bytes)
    if rest:
        raise lab.BenchmarkError(f"{path.name}: not a whole number of packets of {captured_bytes} bytes")
    return count


def sample(chain: str, folder: Path, lengths: tuple[int, int]) -> dict[str, float]:
    """One module, both lengths."""
    config = folder / chain
    seconds, memory = [], []
    for length in lengths:
        target = folder / "out.pcap"
        found = replay(config, folder / f"{length}.pcap", target)
        grown = 18 if chain == "tag" else 0
        if packets_in(target, 78 + grown) != length:
            raise lab.BenchmarkError(f"{chain}: {length} packets went in, another number came out")
        seconds.append(found.wall_s)
        memory.append(found.peak_kb)
    return {
        "packets_per_s": (lengths[1] - lengths[0]) / (seconds[1] - seconds[0]),
        "packets_per_s_with_start": lengths[1] / seconds[1],
        "peak_kb_short": memory[0],
        "peak_kb_long": memory[1],
    }


def measure(rounds: int, packets: int) -> dict[str, list[dict[str, float]]]:
    """Samples by module, rounds interleaved."""
    lengths = (packets // 10, packets)
    samples: dict[str, list[dict[str, float]]] = {chain: [] for chain in CHAINS}
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        for length in lengths:
            write_capture(folder / f"{length}.pcap", length)
        for chain, text in CHAINS.items():
            lab.write_config(folder / chain, text, MATCH)
        for _ in range(rounds):
            for chain, runs in samples.items():
                runs.append(sample(chain, folder, lengths))
    return samples


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.replay", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packets", type=int, default=1_000_000)
    options = parser.parse_args()
    samples = measure(options.rounds, options.packets)
    series = {chain: [run["packets_per_s"] / 1e6 for run in runs] for chain, runs in samples.items()}
    record.table(series, "M packets/s")
    figures = {
        chain: {key: record.summary([run[key] for run in runs]) for key in runs[0]}
        for chain, runs in samples.items()
    }
    for chain, found in figures.items():
        short, long = found["peak_kb_short"]["median"], found["peak_kb_long"]["median"]
        few = options.packets // 10
        print(f"{chain}: peak memory {short} kB for {few} packets, {long} kB for ten times as many")
    met = {chain: statistics.median(values) * 1e6 >= TARGET_PACKETS_PER_S for chain, values in series.items()}
    record.write(
        "replay",
        "packets a second that `layer45 replay` puts through one module",
        {"target_packets_per_s": TARGET_PACKETS_PER_S, "met": met, "figures": figures, "samples": samples},
    )
    record.plot("replay", "layer45 replay, 64-byte packets, one module", "million packets/s", series)


if __name__ == "__main__":
    main()
