"""How many repairs a block needs, by what the path does: a table made once, so that a report costs a look.

The model is that of layer45/loss_model.py: a chain of two states, one that passes datagrams and one that loses them.
`loss` is the part that is lost; `memory` how much of a datagram's fate the next one shares, 0 for independent losses,
1 for always; over d datagrams it is memory^d. Interleaves are powers of two.
Threads: read-only once it is filled.
"""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    LEVELS_LOSSES = 37
    LEVELS_MEMORIES = 9
    LEVELS_INTERLEAVES = 5      # 1, 2, 4, 8, 16
    LEVELS_NONE = 255           # not even the most repairs reach the target

cdef struct fec_levels:         # 2.4 kB
    double losses[LEVELS_LOSSES]      # ascending, the first 0
    double memories[LEVELS_MEMORIES]  # ascending, the first 0
    uint32_t k
    uint32_t most_repairs
    uint32_t interleaves              # how many of them are allowed
    uint8_t repairs[LEVELS_LOSSES][LEVELS_MEMORIES][LEVELS_INTERLEAVES]  # the fewest, or LEVELS_NONE
    uint8_t best[LEVELS_LOSSES][LEVELS_MEMORIES]  # which interleave, as a power of two


# Cold: 13 ms for k = 200 and most_repairs = 100, 0.2 ms for 10 and 10; 75 kB of stack. For blocks of k (1..200) source
# symbols and at most most_repairs (0..100) repair symbols; interleaves up to most_interleave, but 1 always.
# target: the part of the source datagrams that may stay lost.
cdef void levels_fill(fec_levels *levels, uint32_t k, uint32_t most_repairs, uint32_t most_interleave,
                      double target) noexcept nogil

# The fewest repairs for this path, and the smallest interleave that they are enough for. Loss and memory are rounded up
# to the table's. Where nothing reaches the target: the most repairs, and the interleave that leaves the least.
cdef void levels_choose(const fec_levels *levels, double loss, double memory, uint32_t *repairs,
                        uint32_t *interleave) noexcept nogil

# The fewest repairs with this interleave, rounded down to the table's.
cdef uint32_t levels_repairs(const fec_levels *levels, double loss, double memory,
                             uint32_t interleave) noexcept nogil
