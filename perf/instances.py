"""What does a further instance of a trivial module cost a packet?

    python -m perf.instances [--rounds 9] [--packets 100000] [--counts 1 2 4 8 12 16] [--replayed 2000000]

Needs root. The module is `drop` with a prefix that no payload has: it looks at two bytes and lets the packet
go. The price is the slope of a line through the medians (least squares). It is measured twice:

live      engine CPU for a 64-byte packet, as in perf.packets, chains in turn
replayed  the whole CPU of `layer45 replay`, without its start, for such packets in a capture: the same chains
          and worker without the kernel's part, which is twenty times as much and changes by more
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from perf import captures, lab, packets, record, replay, serving

TARGET_NS = 15
NOWHERE = Path("/dev/null")


def chain(count: int) -> str:
    """So many instances."""
    return f"[{', '.join([serving.DROP] * count)}]"


def slope(points: Mapping[int, float]) -> float:
    """Of the line through them that has the least squares."""
    return statistics.linear_regression(list(points), list(points.values())).slope


def live(counts: Sequence[int], rounds: int, count: int) -> tuple[dict[int, list[float]], list[str]]:
    """Nanoseconds of engine for a packet by number of instances, and what went wrong."""
    engines = {str(each): serving.ours(chain(each)) for each in counts}
    load = {"": lab.Load(count, rate=40_000)}
    samples, spoiled = packets.measure(engines, rounds, load)
    return {
        int(name): [us * 1000 for us in found] for name, found in packets.engine_us(samples[""]).items()
    }, spoiled


def replayed(counts: Sequence[int], rounds: int, count: int) -> dict[int, list[float]]:
    """Nanoseconds of replay for a packet by number of instances."""
    samples: dict[int, list[float]] = {each: [] for each in counts}
    with tempfile.TemporaryDirectory(dir=replay.MEMORY) as name:
        folder = Path(name)
        short, long = folder / "short.pcap", folder / "long.pcap"
        captures.write(short, captures.in_turn(64, count // 10))
        captures.write(long, captures.in_turn(64, count))
        configs = {each: lab.write_config(folder / str(each), chain(each), serving.MATCH) for each in counts}
        for turn in range(rounds):
            for each in map(int, lab.turned(map(str, counts), turn)):
                less, more = (replay.replay(configs[each], source, NOWHERE) for source in (short, long))
                samples[each].append((more.cpu_s - less.cpu_s) * 1e9 / (more.packets - less.packets))
    return samples


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.instances", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8, 12, 16])
    parser.add_argument("--replayed", type=int, default=2_000_000, help="packets in the capture")
    options = parser.parse_args()
    if len(set(options.counts)) < 2:
        parser.error("--counts: a slope needs two different numbers")
    alive, spoiled = live(options.counts, options.rounds, options.packets)
    if len(alive) < 2:
        sys.exit("perf.instances: too few samples count")
    found = {"live": alive, "replayed": replayed(options.counts, options.rounds, options.replayed)}
    slopes = {}
    for how, samples in found.items():
        print(how)
        record.table({f"{count:2} instances": samples[count] for count in sorted(samples)}, "ns/packet")
        slopes[how] = round(slope({count: statistics.median(each) for count, each in samples.items()}), 2)
        record.verdict(f"a further instance, {how}, ns", slopes[how], TARGET_NS, slopes[how] <= TARGET_NS)
    record.write(
        "instances",
        "CPU that a further instance of a trivial module takes for a packet, in nanoseconds",
        {
            "target_ns": TARGET_NS,
            "slope_ns": slopes,
            "options": vars(options),
            "samples": found,
            "not_counted": spoiled,
        },
    )
    series = {f"{count:2}, {how}": each for how, samples in found.items() for count, each in samples.items()}
    record.plot("instances", "CPU for a packet, by instances in its chain", "nanoseconds", series)


if __name__ == "__main__":
    main()
