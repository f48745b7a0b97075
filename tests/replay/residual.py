"""What theory says is left of independent losses behind fec, and how far so many blocks may be off.

A block of k source and m repair symbols loses nothing of its sources while at most m of its k + m are lost;
with more, all the sources that did not arrive stay lost. The mean of those, over k, is
p · P[Bin(k + m - 1, p) >= m].

Within a block the losses cluster: most blocks lose nothing, a few lose more than m datagrams at once. So no
datagram is a trial of its own, but each block is: the lost of n blocks are the sum of n independent numbers
with the distribution `lost_of_a_block`, whose mean and variance are exact sums over two binomials. Where many
blocks fail, the sum is normal with n times both. Where few do (at 1 % and 5 % nearly none) it is not, so
`interval` takes the sum's own distribution, that of one block n times convolved: exact in both cases.
"""

from math import comb

import numpy as np
from numpy.typing import NDArray

CODES = [(10, 3), (20, 4), (32, 8)]
LOSSES = [0.01, 0.05, 0.10, 0.20]
REFERENCE = {  # of the issue
    (0.05, 10, 3): 9.8e-4, (0.05, 20, 4): 1.29e-3, (0.05, 32, 8): 3.0e-5,
    (0.10, 10, 3): 1.11e-2, (0.10, 20, 4): 1.93e-2, (0.10, 32, 8): 3.7e-3,
}  # fmt: skip


def binomial(count: int, loss: float) -> NDArray[np.float64]:
    return np.array([comb(count, n) * loss**n * (1 - loss) ** (count - n) for n in range(count + 1)])


def lost_of_a_block(loss: float, k: int, m: int) -> NDArray[np.float64]:
    """P[n of its source datagrams stay lost], by n."""
    repairs = binomial(m, loss)
    sources = binomial(k, loss)
    lost = np.array([sources[n] * repairs[max(0, m + 1 - n) :].sum() for n in range(k + 1)])
    lost[0] = 0
    lost[0] = 1 - lost.sum()
    return lost


def interval(loss: float, k: int, m: int, blocks: int, confidence: float) -> tuple[int, int]:
    """The lost of so many blocks lie within, both ends included, with at least this probability."""
    spectrum = np.fft.rfft(lost_of_a_block(loss, k, m), blocks * k + 1)
    up_to = np.cumsum(np.fft.irfft(spectrum**blocks, blocks * k + 1))
    tail = (1 - confidence) / 2
    return int(np.searchsorted(up_to, tail)), int(np.searchsorted(up_to, 1 - tail))
