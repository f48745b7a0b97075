"""Did a ratio change since it was stored? The regression guard's rule: pure arithmetic, nothing is measured.

Of each figure there are the ratios of some rounds, now and stored. Its spread is the distance of the two
quartiles. A figure is worse, or better, when its median has changed by more than both spreads together, and
by LEAST_CHANGE at least: so neither the noise of this run nor that of the stored one explains it. If it has
not, but both spreads together are more than NOISY of the median, it is noisy: a change of that size would not
have been seen. Else it is the same.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST_CHANGE = 0.05
NOISY = 0.15
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Line:
    """A figure beside what it was. stored, change: None without such a one. change: a part of what it was."""

    name: str
    now: float | None
    stored: float | None
    change: float | None
    spread: float | None
    verdict: str


def compare(
    now: Mapping[str, Sequence[float]],
    stored: Mapping[str, Sequence[float]],
    more_is_better: Mapping[str, bool],
) -> list[Line]:
    """A line for each figure that there is, now or stored, in the order of more_is_better."""
    return [
        _line(name, now.get(name, ()), stored.get(name, ()), more) for name, more in more_is_better.items()
    ]


def _line(name: str, now: Sequence[float], stored: Sequence[float], more_is_better: bool) -> Line:
    if len(now) < FEWEST_ROUNDS:
        return Line(name, None, statistics.median(stored) if stored else None, None, None, "not measured")
    found, spread = statistics.median(now), _spread(now)
    if len(stored) < FEWEST_ROUNDS:
        return Line(name, found, None, None, spread / found, "new")
    before = statistics.median(stored)
    change, both = (found - before) / before, (spread + _spread(stored)) / before
    return Line(name, found, before, change, both, _verdict(change, both, more_is_better))


def _verdict(change: float, spread: float, more_is_better: bool) -> str:
    if abs(change) > spread and abs(change) >= LEAST_CHANGE:
        return "better" if (change > 0) == more_is_better else "worse"
    return "noisy" if spread > NOISY else "same"


def _spread(samples: Sequence[float]) -> float:
    lower, _, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return upper - lower


def table(lines: Sequence[Line]) -> list[str]:
    """A row for each, under a head."""
    width = max((len(line.name) for line in lines), default=0)
    head = f"{'':<{width}}  {'now':>8}  {'stored':>8}  {'change':>8}  {'spread':>7}"
    return [head, *(_row(line, width) for line in lines)]


def _row(line: Line, width: int) -> str:
    change = "-" if line.change is None else f"{line.change:+.1%}"
    spread = "-" if line.spread is None else f"{line.spread:.1%}"
    now, stored = ("-" if each is None else f"{each:.3f}" for each in (line.now, line.stored))
    return f"{line.name:<{width}}  {now:>8}  {stored:>8}  {change:>8}  {spread:>7}  {line.verdict}"


def summary(lines: Sequence[Line]) -> str:
    """How many of each verdict, and which are worse."""
    verdicts = ("worse", "better", "same", "noisy", "new", "not measured")
    counts = {each: sum(line.verdict == each for line in lines) for each in verdicts}
    worse = ", ".join(line.name for line in lines if line.verdict == "worse")
    told = ", ".join(f"{count} {each}" for each, count in counts.items() if count)
    return f"{told or 'nothing measured'}{f'; worse: {worse}' if worse else ''}"
