"""What theory says is left of independent losses behind fec, and how far so many blocks may be off.

A block of k source and m repair symbols loses nothing of its sources while at most m of its k + m are lost;
with more, all the sources that did not arrive stay lost. The mean of those, over k, is
p · P[Bin(k + m - 1, p) >= m].

Within a block the losses cluster: most blocks lose nothing, a few lose more than m datagrams at once. So no
datagram is a trial of its own, but each block is: the lost of n blocks are the sum of n independent numbers
with the distribution `lost_of_block`, whose mean and variance are exact sums over two binomials. Where many
blocks fail, the sum is normal with n times both. Where few do (at 1 % and 5 % nearly none) it is not, so
`lost_within` takes the sum's own distribution, that of one block n times convolved: exact in both cases.
"""

from layer45.loss_model import lost_of_block, lost_within

CODES = [(10, 3), (20, 4), (32, 8)]
LOSSES = [0.01, 0.05, 0.10, 0.20]
REFERENCE = {  # of the issue
    (0.05, 10, 3): 9.8e-4, (0.05, 20, 4): 1.29e-3, (0.05, 32, 8): 3.0e-5,
    (0.10, 10, 3): 1.11e-2, (0.10, 20, 4): 1.93e-2, (0.10, 32, 8): 3.7e-3,
}  # fmt: skip


def interval(loss: float, k: int, m: int, blocks: int, confidence: float) -> tuple[int, int]:
    """The lost of so many blocks lie within, both ends included, with at least this probability."""
    return lost_within(lost_of_block(loss, k, m), blocks, confidence)
