"""Whether a policy's chain fails too often.

    It does when, of the packets that this host sent within the last 10 seconds in flows that it began, more
    than error_threshold, and more than half, were failed by a module.

On what comes in, and on what answers it, modules may fail as often as somebody out there likes: that changes
counters, and is told, but is no reason to switch anything off.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

WINDOW_S = 10.0
ChainKey = tuple[int, str]  # what the engine knows a chain by


@dataclass(frozen=True)
class Faults:
    """What one instance of a chain did wrong so far.

    place: in the chain, from 1. said: what it raised last.
    """

    module: str
    place: int
    errors: int = 0
    unset: int = 0
    flows_refused: int = 0
    said: str = ""

    def __sub__(self, before: "Faults") -> "Faults":
        return replace(
            self,
            errors=self.errors - before.errors,
            unset=self.unset - before.unset,
            flows_refused=self.flows_refused - before.flows_refused,
        )

    @property
    def count(self) -> int:
        """Of whatever kind."""
        return self.errors + self.unset + self.flows_refused

    @property
    def reason(self) -> str:
        """What it did most."""
        raised = f"it raised {self.said}" if self.said else "it answered ERROR"
        kinds = {
            raised: self.errors,
            "it gave no verdict that it may give": self.unset,
            "it opens no flow": self.flows_refused,
        }
        return max(kinds, key=lambda kind: kinds[kind])


@dataclass(frozen=True)
class Tally:
    """What a policy's chain counted so far.

    begun: packets that this host sent in flows that it began, and how many of them failed. others: all other
    packets. agrees: it customizes TCP connections whose peer runs it, too.
    """

    policy: str
    key: ChainKey
    begun: tuple[int, int] = (0, 0)
    others: tuple[int, int] = (0, 0)
    faults: tuple[Faults, ...] = ()
    on_failure: str = "open"
    agrees: bool = False

    def fresh(self) -> "Tally":
        """The chain's when it was made."""
        faults = tuple(Faults(each.module, each.place) for each in self.faults)
        return Tally(self.policy, self.key, faults=faults)


@dataclass(frozen=True)
class Finding:
    """A chain that fails too often: so many of so many packets. worst: the instance that did most of it."""

    tally: Tally
    packets: int
    failures: int
    worst: Faults

    def told(self) -> dict[str, Any]:
        """For the log, and for `layer45 status`."""
        return {
            "module": self.worst.module,
            "instance": self.worst.place,
            "failures": self.failures,
            "packets": self.packets,
            "seconds": round(WINDOW_S),
            "reason": self.worst.reason,
        }


@dataclass
class _Window:
    """A chain's tallies of the last seconds, oldest first. told: that it fails on other packets."""

    seen: deque[tuple[float, Tally]] = field(default_factory=deque)
    told: bool = False

    def add(self, now: float, tally: Tally) -> None:
        self.seen.append((now, tally))
        while len(self.seen) > 2 and self.seen[1][0] <= now - WINDOW_S:
            self.seen.popleft()

    def begun(self, threshold: int) -> Finding | None:
        first, last = self._ends
        return _finding(first, last, first.begun, last.begun, threshold)

    def others(self, threshold: int) -> Finding | None:
        first, last = self._ends
        return _finding(first, last, first.others, last.others, threshold)

    @property
    def _ends(self) -> tuple[Tally, Tally]:
        return self.seen[0][1], self.seen[-1][1]


def _finding(
    first: Tally, last: Tally, before: tuple[int, int], after: tuple[int, int], threshold: int
) -> Finding | None:
    packets, failures = after[0] - before[0], after[1] - before[1]
    if failures <= threshold or 2 * failures <= packets:
        return None
    faults = [now - then for then, now in zip(first.faults, last.faults, strict=True)]
    return Finding(last, packets, failures, max(faults, key=lambda each: each.count))


class FailureWatch:
    """The tallies of all chains, over time. threshold 0: nothing is too often."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._windows: dict[ChainKey, _Window] = {}

    def look(self, tallies: Iterable[Tally], now: float) -> tuple[list[Finding], list[Finding]]:
        """What fails too often on packets of flows begun here; and on others, each once until that is over.

        Chains that are not among the tallies are forgotten. now: seconds of a clock that never goes back.
        """
        begun, others = [], []
        before, self._windows = self._windows, {}
        for tally in tallies if self._threshold else ():
            window = self._windows[tally.key] = before.get(tally.key) or _begun(tally.fresh(), now)
            window.add(now, tally)
            if found := window.begun(self._threshold):
                begun.append(found)
            found = window.others(self._threshold)
            if found and not window.told:
                others.append(found)
            window.told = found is not None
        return begun, others

    def begin(self, tally: Tally, now: float) -> None:
        """What the chain did before is over."""
        self._windows[tally.key] = _begun(tally, now)


def _begun(tally: Tally, now: float) -> _Window:
    return _Window(deque([(now, tally)]))
