"""What is left of a loss behind a block code of k source and m repair symbols.

The path is a chain of two states, one that passes packets and one that loses them (Gilbert's; Elliott's with
loss 0 and 1). A burst of mean length 1 / (1 - loss) makes it memoryless: independent loss, the binomial.

A block's packets in the order in which they leave: k source symbols, `interleave` packets apart, and then all
m repair symbols in a row. (So it is for the first of interleaved blocks to end. The last source symbol of the
others stands a little further off, behind repair symbols of those before, which does them no harm.)
"""

from dataclasses import dataclass
from math import ceil, comb, sqrt

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

FAR_OUT = 20  # deviations, and blocks that are lost as a whole


@dataclass(frozen=True)
class Path:
    """A path's loss, and the mean number of packets that are lost in a row; 0: independent losses."""

    loss: float
    burst: float = 0.0

    @property
    def memory(self) -> float:
        """How much of a packet's fate the next one shares: 0 for independent losses, 1 for always."""
        return 1 - 1 / (self.burst * (1 - self.loss)) if self.burst else 0.0

    def loss_after(self, lost: bool, apart: int) -> float:
        """The probability that a packet is lost when the one so many packets before it was, or was not."""
        shared = self.memory**apart
        return self.loss + (1 - self.loss) * shared if lost else self.loss * (1 - shared)


def independent_residual(loss: float, k: int, m: int) -> float:
    """loss · P[Bin(k + m - 1, loss) >= m]: a source symbol is lost, and m or more of the others."""
    others = k + m - 1
    return loss * sum(comb(others, n) * loss**n * (1 - loss) ** (others - n) for n in range(m, others + 1))


class Losses:
    """How many of a row of packets are lost, and whether the last one is: grows packet by packet.

    passed[n], lost[n]: the probability of n losses so far, and that the last packet passed, or was lost.
    """

    def __init__(self, path: Path, apart: int, passed: float, lost: float) -> None:
        self.path, self.apart = path, apart
        self.passed: Vector = np.array([passed])
        self.lost: Vector = np.array([lost])

    def add(self) -> None:
        """One more packet."""
        after_passed = self.path.loss_after(False, self.apart)
        after_lost = self.path.loss_after(True, self.apart)
        passed = self.passed * (1 - after_passed) + self.lost * (1 - after_lost)
        lost = self.passed * after_passed + self.lost * after_lost
        self.passed, self.lost = np.append(passed, 0.0), np.append(0.0, lost)

    @property
    def count(self) -> Vector:
        """The distribution of the number of losses."""
        return self.passed + self.lost


class Sources(Losses):
    """The source symbols of a block; the first one's predecessor is any packet."""

    def __init__(self, path: Path, interleave: int) -> None:
        super().__init__(path, interleave, 1 - path.loss, path.loss)


class Repairs:
    """exceeds[m][fate][n]: P[more than n of m are lost], by the fate of the last source symbol."""

    def __init__(self, path: Path, most: int) -> None:
        self.exceeds: list[tuple[Vector, Vector]] = []
        rows = Losses(path, 1, 1.0, 0.0), Losses(path, 1, 0.0, 1.0)
        for _ in range(most + 1):
            self.exceeds.append((_exceeds(rows[0]), _exceeds(rows[1])))
            for row in rows:
                row.add()


def _exceeds(row: Losses) -> Vector:
    at_least: Vector = np.cumsum(row.count[::-1])[::-1]
    return np.append(at_least[1:], 0.0)


def residual(sources: Sources, repairs: Repairs, m: int) -> float:
    """The part of source symbols that stay lost. With n lost, m - n repair symbols may be lost too."""
    k = len(sources.passed) - 1
    lost = np.arange(k + 1)
    total = 0.0
    for state, exceeds in zip((sources.passed, sources.lost), repairs.exceeds[m], strict=True):
        unmended = np.where(lost > m, 1.0, exceeds[np.clip(m - lost, 0, m)])
        total += float(np.sum(lost * state * unmended))
    return total / k


def block_residual(path: Path, k: int, m: int, interleave: int = 1) -> float:
    """As residual, of one code."""
    sources = Sources(path, interleave)
    for _ in range(k):
        sources.add()
    return residual(sources, Repairs(path, m), m)


def lost_of_block(loss: float, k: int, m: int) -> Vector:
    """The distribution of how many source symbols of a block stay lost, where losses are independent."""
    path = Path(loss)
    sources, exceeds = Sources(path, 1), Repairs(path, m).exceeds[m][0]
    for _ in range(k):
        sources.add()
    lost = np.arange(k + 1)
    stay: Vector = sources.count * np.where(lost > m, 1.0, exceeds[np.clip(m - lost, 0, m)])
    stay[0] = 1 - stay[1:].sum()
    return stay


def lost_within(block: Vector, blocks: int, certainty: float) -> tuple[int, int]:
    """The least and the most source symbols that so many blocks lose, but for the rare ends of both sides."""
    size = _room(block, blocks)
    at_most = np.cumsum(np.fft.irfft(np.fft.rfft(block, size) ** blocks, size))
    rare = (1 - certainty) / 2
    return int(np.searchsorted(at_most, rare)), int(np.searchsorted(at_most, 1 - rare))


def _room(block: Vector, blocks: int) -> int:
    """A power of two beyond what the blocks lose: all they have, or so far out that it never happens."""
    lost = np.arange(len(block))
    mean = float(block @ lost)
    deviation = sqrt(blocks * (float(block @ lost**2) - mean**2))
    most = min(blocks * (len(block) - 1), ceil(blocks * mean + FAR_OUT * (deviation + len(block))))
    return 1 << most.bit_length()
