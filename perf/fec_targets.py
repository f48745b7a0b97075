"""What perf.fec_live's figures are held against: ratios of medians within the run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from perf.fec_questions import CPU, FLOWS, LOSSY, WIRE

DIRECT, EMPTY, FEC = "direct", "empty chain", "fec"
SPEEDER = {mode: f"UDPspeeder, mode {mode}" for mode in (0, 1)}
CPU_SHARE = 1 / 3
LATENCY_RATIOS = {"p50": 1.2, "p99": 1.5}
WIRE_RATIO = 2.05

Medians = Mapping[str, Mapping[str, float]]  # by case and by figure


@dataclass(frozen=True)
class Verdict:
    """One target, and what became of it."""

    what: str
    found: float
    most: float

    @property
    def met(self) -> bool:
        return self.found <= self.most

    def __str__(self) -> str:
        return f"{self.what}: {self.found:.3f}, target {self.most:.3f}: {'met' if self.met else 'MISSED'}"


def verdicts(medians: Medians, deadline_ms: float) -> list[Verdict]:
    """Every target whose figures are there."""
    ours = medians.get(FEC, {})
    return [*_ratios(medians), *_recovery(ours, deadline_ms)]


def _ratios(medians: Medians) -> Iterator[Verdict]:
    wanted = [(CPU, other, CPU_SHARE) for other in SPEEDER.values()]
    wanted += [(f"{q} us, {name}", EMPTY, most) for name in FLOWS for q, most in LATENCY_RATIOS.items()]
    wanted += [(WIRE, DIRECT, WIRE_RATIO)]
    for figure, other, most in wanted:
        ours, theirs = (medians.get(case, {}).get(figure) for case in (FEC, other))
        if ours is not None and theirs:
            yield Verdict(f"{figure}, {FEC} to {other}", ours / theirs, most)


def _recovery(ours: Mapping[str, float], deadline_ms: float) -> Iterator[Verdict]:
    """What was recovered may be later than what was not lost by the deadline."""
    for name in LOSSY:
        for which in ("p99", "max"):
            recovered, transit = (ours.get(f"{which} us, {name}, {of}") for of in ("recovered", "not lost"))
            if recovered is not None and transit is not None:
                most = deadline_ms * 1000 + transit
                yield Verdict(f"{which} us, {name}, {FEC}, recovered", recovered, most)
