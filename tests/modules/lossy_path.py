"""A sender, a path that loses packets by Gilbert's two states, and a receiver that reports; no packets."""

from dataclasses import dataclass, field

import numpy as np

from layer45.modules.fec.adaptive_shell import Controller, Levels

MILLISECOND = 1_000_000
SECOND = 1000 * MILLISECOND


@dataclass
class Seen:
    """What became of source datagrams, and what the controller went by after each report."""

    sources: int = 0
    unmended: int = 0
    repairs: list[int] = field(default_factory=list)
    interleaves: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def residual(self) -> float:
        return self.unmended / self.sources

    @property
    def mean_repairs(self) -> float:
        return sum(self.repairs) / len(self.repairs)

    def first(self, most_repairs: int) -> int:
        """The place of the first report after which no more repairs than that were wanted."""
        return next(at for at, repairs in enumerate(self.repairs) if repairs <= most_repairs)


class Lane:
    """One flow, whole groups of interleaved blocks a report."""

    def __init__(self, levels: Levels, k: int, repairs: int = 3, rate_pps: int = 1000, report_ms: int = 200):
        self.levels, self.k, self.rate_pps, self.report_ms = levels, k, rate_pps, report_ms
        self.controller = Controller(levels, k, repairs)
        self.random = np.random.default_rng(7)
        self.counts = np.zeros(3, int)  # expected, lost, runs
        self.number, self.now_ns, self.due, self.last = 0, SECOND, 0.0, False

    def drive(self, reports: int, loss: float, memory: float = 0.0) -> Seen:
        seen = Seen()
        for _ in range(reports):
            self.due += self.rate_pps * self.report_ms / 1000
            while self.due >= self.k * self.controller.interleave:
                self._send_group(seen, loss, memory)
            self._report()
            seen.repairs.append(self.controller.repairs)
            seen.interleaves.append(self.controller.interleave)
            seen.losses.append(self.controller.loss)
        return seen

    def _report(self) -> None:
        self.number += 1
        self.now_ns += self.report_ms * MILLISECOND
        assert self.controller.report(self.number, *map(int, self.counts), self.now_ns)

    def _send_group(self, seen: Seen, loss: float, memory: float) -> None:
        interleave, m = self.controller.interleave, self.controller.repairs
        order = np.array(_order(self.k, m, interleave))
        lost = self._walk(len(order), loss, memory)
        for block in range(interleave):
            own = lost[order == block]
            sources = own[: self.k]
            runs = sources & ~np.append(False, sources[:-1])
            self.counts += [self.k, sources.sum(), runs.sum()]
            seen.sources += self.k
            seen.unmended += int(sources.sum()) if own.sum() > m else 0
        self.due -= self.k * interleave

    def _walk(self, count: int, loss: float, memory: float) -> np.ndarray:
        """Which packets are lost. A random number decides, or leaves a packet the fate of its predecessor."""
        dice = self.random.random(count)
        decided = (dice < loss * (1 - memory)) | (dice >= loss + (1 - loss) * memory)
        fates = np.append(self.last, dice < loss * (1 - memory))
        decider = np.maximum.accumulate(np.append(0, np.where(decided, np.arange(1, count + 1), 0)))
        lost = fates[decider][1:]
        self.last = bool(lost[-1])
        return lost


def _order(k: int, m: int, interleave: int) -> list[int]:
    """Whose packets leave, one by one, in a group of interleaved blocks: a block ends with its repairs."""
    sources = [block for _ in range(k) for block in range(interleave)]
    tail = [block for last in range(interleave) for block in [last] * (1 + m)]
    return sources[: -interleave or None] + tail
