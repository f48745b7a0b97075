"""What a block code leaves of a loss: the model of layer45/loss_model.py, on rows of numbers that are the caller's.

A path is a chain of two states, one that passes packets and one that loses them. loss: the part that is lost; memory:
how much of a packet's fate the next one shares, 0 for independent losses. A block's packets in their order: k source
symbols, as far apart as its interleave, and then m repair symbols in a row.
Threads: nothing is shared, all functions may run in any number of threads.
"""

from libc.stdint cimport uint32_t

from layer45.fastpath.reed_solomon cimport RS_MOST_REPAIRS, RS_MOST_SOURCES

cdef struct loss_row:           # P[n lost] of a row of packets that grows, by whether the last one was lost
    double after_passed         # P[one more is lost], by the one before it
    double after_lost
    uint32_t width              # n = 0..width-1; more are as good as impossible
    double *lost                # into room; moves down by one a packet: so all cells change where they are
    double passed[RS_MOST_SOURCES + 1]
    double room[RS_MOST_SOURCES + 1]

cdef struct source_row:         # what n lost source symbols, n = 0..width-1, weigh: n · P[n lost]
    uint32_t width
    double passed[RS_MOST_SOURCES + 1]
    double lost[RS_MOST_SOURCES + 1]
    double from_here[RS_MOST_SOURCES + 2]  # Σ of both from n on

cdef struct repair_rows:        # by the fate of the last source symbol: passed, lost
    loss_row rows[2]
    double exceeds[2][RS_MOST_REPAIRS + 1]  # P[more than n lost], n = 0..m


# The rows of k source symbols (1..RS_MOST_SOURCES); memory: that of packets `interleave` apart.
cdef void fill_sources(source_row *sources, uint32_t k, double loss, double memory) noexcept nogil

# The rows of no repair symbols, and those with the m-th (1..RS_MOST_REPAIRS), each m after the one before it.
cdef void start_repairs(repair_rows *repairs, double loss, double memory) noexcept nogil
cdef void add_repair(repair_rows *repairs, uint32_t m) noexcept nogil

# How many source symbols of a block stay lost, on the average. m: as in repairs.
cdef double unmended(const source_row *sources, const repair_rows *repairs, uint32_t m) noexcept nogil


cdef inline double lost_beyond(const source_row *sources, uint32_t m) noexcept nogil:
    """Those of blocks with more than m lost, whatever becomes of the repairs: the least that `unmended` can be."""
    return sources.from_here[min(m + 1, sources.width)]
