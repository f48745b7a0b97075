"""What must hold of a soak, judged on what was sampled: nothing here measures anything.

Memory: a line through the samples of one process behind its warm-up (Theil and Sen's: the median of the
slopes between any two) may not rise by more than MOST_GROWTH_KB from its first sample to its last, and none
may be MOST_ABOVE_KB above the median. Descriptors and threads: in the end, idle, no more than in the
beginning, idle, and never MOST_HANDLES_ABOVE more. Counters balance exactly when idle; meanwhile up to
MOST_UNDER_WAY packets are in a chain, or pass while the counters are read. The other rules are equations.
"""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

WARM_UP_S = 10.0  # of a process, or a quarter of its samples if that is less
FEWEST = 8  # samples to judge memory by
MOST_COMPARED = 150  # samples; of more, evenly spread ones
MOST_GROWTH_KB = 4096
MOST_ABOVE_KB = 24 * 1024
MOST_HANDLES_ABOVE = 16
MOST_UNDER_WAY = 256
HANDLES = ("descriptors", "threads")
VERDICTS = ("passed", "rewritten", "dropped", "held")
LONGEST_SILENCE_S = 30.0


@dataclass(frozen=True)
class Sample:
    """One look at a daemon. seconds: since the soak began. memory_kb: its proportional set size.

    waiting, dropped: packets in the kernel's queues, and dropped by the kernel. live: objects of the engine.
    engine: its counters, since this process began.
    """

    seconds: float
    pid: int
    memory_kb: int
    resident_kb: int
    descriptors: int
    threads: int
    waiting: int = 0
    dropped: int = 0
    live: Mapping[str, int] = field(default_factory=dict)
    engine: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Delivery:
    """What became of a load. due: what no module was to drop. twice: datagrams that came again."""

    sent: int
    due: int
    arrived: int
    twice: int = 0
    datagrams: bool = True


def judge(
    series: Mapping[str, Sequence[Sample]],
    deliveries: Mapping[str, Delivery],
    unread: int,
    wrong_sums: Mapping[str, int],
    faults: Sequence[str],
) -> list[str]:
    """One line for each rule that does not hold.

    series: by host, in order; the first sample before all traffic, the last behind it. unread: datagrams that
    receivers had no room for, by the kernels' count. wrong_sums: wrong checksums by host. faults: counters of
    the engine that must stay 0.
    """
    found: list[str] = []
    for host, samples in series.items():
        rules = (growth, handles, silences, balances, ends_idle)
        lines = [line for rule in rules for line in rule(samples)]
        lines += failures(samples, faults)
        found += [f"{host}: {line}" for line in lines]
    found += lost(deliveries, unread)
    found += [f"{host}: {count} packets with a wrong checksum" for host, count in wrong_sums.items() if count]
    return found


def lives(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Those of one process each."""
    found: dict[int, list[Sample]] = {}
    for each in samples:
        found.setdefault(each.pid, []).append(each)
    return list(found.values())


def warmed(samples: Sequence[Sample]) -> list[Sample]:
    """Those of one process behind its warm-up."""
    begun, whole_s = samples[0].seconds, samples[-1].seconds - samples[0].seconds
    return [each for each in samples if each.seconds - begun >= min(WARM_UP_S, whole_s / 4)]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's: outliers, up to a third of all, do not move it."""
    step = max(1, len(points) // MOST_COMPARED)
    pairs = combinations(points[::step], 2)
    return statistics.median((later[1] - one[1]) / (later[0] - one[0]) for one, later in pairs)


def growth(samples: Sequence[Sample]) -> Iterator[str]:
    """Memory that grows, or is far above what it mostly is."""
    for life in lives(samples):
        warm = warmed(life)
        if len(warm) < FEWEST:
            continue
        rate = slope([(each.seconds, each.memory_kb) for each in warm])
        took_s = warm[-1].seconds - warm[0].seconds
        usual = statistics.median(each.memory_kb for each in warm)
        most = max(each.memory_kb for each in warm)
        if rate * took_s > MOST_GROWTH_KB:
            yield f"process {life[0].pid} grew by {rate * took_s:.0f} kB in {took_s:.0f} s, to {most} kB"
        if most - usual > MOST_ABOVE_KB:
            yield f"process {life[0].pid} had {most} kB for a time, and mostly {usual:.0f}"


def handles(samples: Sequence[Sample]) -> Iterator[str]:
    """Descriptors and threads that are not given back."""
    for what in HANDLES:
        first, most, last = (
            getattr(samples[0], what),
            max(getattr(each, what) for each in samples),
            getattr(samples[-1], what),
        )
        if last > first:
            yield f"{last} {what} when idle, {first} in the beginning"
        if most > first + MOST_HANDLES_ABOVE:
            yield f"{most} {what} for a time, {first} in the beginning"


def silences(samples: Sequence[Sample]) -> Iterator[str]:
    """Times without a sample, of which nothing is known."""
    for one, later in pairwise(samples):
        if later.seconds - one.seconds > LONGEST_SILENCE_S:
            yield f"no sample from {one.seconds:.0f} s to {later.seconds:.0f} s"


def balances(samples: Sequence[Sample]) -> Iterator[str]:
    """Packets without a verdict, or with two; the first time only."""
    for each in samples:
        received, answered = each.engine["received"], sum(each.engine[name] for name in VERDICTS)
        if abs(received - answered) > (0 if each is samples[-1] else MOST_UNDER_WAY):
            yield f"after {each.seconds:.0f} s: {received} packets received, {answered} answered or held"
            return


def ends_idle(samples: Sequence[Sample]) -> Iterator[str]:
    """What is left behind the traffic."""
    first, last = samples[0], samples[-1]
    if last.waiting:
        yield f"{last.waiting} packets left in the queues"
    if last.engine["held"]:
        yield f"{last.engine['held']} packets held in the end"
    for what, count in last.live.items():
        if count != first.live[what]:
            yield f"{count} {what} left in the end, {first.live[what]} in the beginning"


def failures(samples: Sequence[Sample], faults: Sequence[str]) -> Iterator[str]:
    """Packets that the kernel dropped, and faults of the engine: the most of a process."""
    for life in lives(samples):
        if dropped := max(each.dropped for each in life):
            yield f"process {life[0].pid}: the kernel dropped {dropped} packets from the queues"
        worst: Counter[str] = Counter()
        for each in life:
            worst |= Counter({name: each.engine[name] for name in faults})
        for name, count in worst.items():
            yield f"process {life[0].pid}: {name} {count}"


def lost(deliveries: Mapping[str, Delivery], unread: int) -> Iterator[str]:
    """What did not arrive, came twice, or should have been dropped; and loads that did nothing."""
    for name, each in deliveries.items():
        if not each.sent:
            yield f"{name}: nothing was sent"
        if each.twice:
            yield f"{name}: {each.twice} came twice"
        if each.arrived > each.due:
            yield f"{name}: {each.arrived} arrived, {each.due} of {each.sent} were to"
        if each.arrived < each.due and not each.datagrams:
            yield f"{name}: {each.arrived} of {each.due} arrived"
    datagrams = {name: each for name, each in deliveries.items() if each.datagrams}
    missing = {name: each.due - each.arrived for name, each in datagrams.items() if each.arrived < each.due}
    if sum(missing.values()) > unread:
        for name, count in missing.items():
            yield f"{name}: {count} of {datagrams[name].due} did not arrive; receivers left {unread} unread"
