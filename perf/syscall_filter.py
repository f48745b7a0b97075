"""What does a packet pay for the filter of the workers' system calls?

    python -m perf.syscall_filter [--rounds 15] [--packets 40000]

Needs root. The daemon with an empty chain, as it is and with the filter left out, in turns. In bursts of 64 a
system call serves many packets; one by one each packet has four of its own, the most that it can have.
"""

import argparse
import statistics
import sys

from perf import lab, packets, record, serving

WITHOUT = (
    "from layer45 import syscall_filter; syscall_filter.install = lambda: ''; "
    "from layer45.cli import main; main()"
)
PROGRAMS = {"with": [sys.executable, "-m", "layer45"], "without": [sys.executable, "-c", WITHOUT]}
LOADS = {"bursts of 64": (64, 40_000), "one by one": (1, 8_000)}  # burst, packets a second


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.syscall_filter", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--packets", type=int, default=40_000)
    options = parser.parse_args()
    engines = {name: serving.ours(serving.EMPTY, program) for name, program in PROGRAMS.items()}
    loads = {name: lab.Load(options.packets, burst=burst, rate=rate) for name, (burst, rate) in LOADS.items()}
    samples, spoiled = packets.measure(engines, options.rounds, loads)
    series = {
        f"{name}, {how}": us for name, runs in samples.items() for how, us in packets.engine_us(runs).items()
    }
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
