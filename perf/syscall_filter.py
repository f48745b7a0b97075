"""What does a packet pay for the filter of the workers' system calls?

    python -m perf.syscall_filter [--rounds 15] [--packets 40000]

Needs root. The daemon with an empty chain, as it is and with the filter left out, in turns. In bursts of 64 a
system call serves many packets; one by one each packet has four of its own, the most that it can have.
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from perf import lab, packets, record
from tests.netns.topology import Hosts

WITHOUT = (
    "from layer45 import syscall_filter; syscall_filter.install = lambda: ''; "
    "from layer45.cli import main; main()"
)
PROGRAMS = {"with": [sys.executable, "-m", "layer45"], "without": [sys.executable, "-c", WITHOUT]}
LOADS = {"bursts of 64": (64, 40_000), "one by one": (1, 8_000)}  # burst, packets a second


def engine(program: Sequence[str]) -> packets.Engine:
    """The daemon, by a command line of its own."""

    @contextlib.contextmanager
    def started(hosts: Hosts) -> Iterator[int]:
        with tempfile.TemporaryDirectory() as folder:
            config = lab.write_config(Path(folder) / "etc", packets.CHAINS["empty"], packets.MATCH)
            with lab.daemon(hosts.a, config, program) as process:
                yield process.pid

    return started


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.syscall_filter", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--packets", type=int, default=40_000)
    options = parser.parse_args()
    engines = {name: engine(program) for name, program in PROGRAMS.items()}
    series: dict[str, list[float]] = {}
    spoiled: dict[str, list[str]] = {}
    for name, (burst, rate) in LOADS.items():
        load = lab.Load(options.packets, burst=burst, rate=rate)
        samples, spoiled[name] = packets.measure(engines, options.rounds, load, "device")
        series |= {f"{name}, {how}": [run["engine_us"] for run in runs] for how, runs in samples.items()}
    record.table(series, "us/packet")
    medians = {name: statistics.median(values) for name, values in series.items()}
    ratios = {name: round(medians[f"{name}, with"] / medians[f"{name}, without"], 3) for name in LOADS}
    print("with / without:", ratios)
    question = "CPU of the engine for a 64-byte UDP packet, with and without the filter, in microseconds"
    record.write(
        "syscall_filter",
        question,
        {
            "ratios": ratios,
            "figures": {name: record.summary(values) for name, values in series.items()},
            "samples": series,
            "not_counted": spoiled,
        },
    )
    record.plot("syscall_filter", "Engine CPU for a 64-byte UDP packet", "microseconds", series)


if __name__ == "__main__":
    main()
