"""The sender's controller: from a receiver's reports to the repairs and the interleave that a path needs now.

What is known of the path is a sum over reports, in which older ones fade: to a third in 5 s. A report that says
significantly more loss than the sum begins it anew: so an estimate rises with one report, and falls over seconds.
Reports of fewer than 50 datagrams, unless 5 are lost, wait for the next one.

A memory is seen at the distance of the interleave in use, where there may be nothing left of it to see. So it is
raised only when it is certainly higher, lowered only as far as it is certainly lower, and kept between.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from layer45.modules.fec.levels cimport fec_levels
from layer45.modules.fec.report cimport fec_report

cdef struct fec_adapt:      # 64 bytes of a flow's state; all zero at first
    uint32_t number         # of the last report that was taken
    uint32_t expected       # counts of the last report that a window ended with
    uint32_t lost
    uint32_t runs
    uint64_t window_ns      # when it came
    uint64_t taken_ns       # when the last one was taken
    uint64_t changed_ns     # since when the interleave is as it is; 0: always was
    float datagrams         # sums that fade: source datagrams,
    float losses            # those of them that were lost,
    float followers         # lost ones with a predecessor in their block, `interleave` datagrams before them,
    float pairs             # and those of them whose predecessor was lost too
    float memory            # estimate: see levels.pxd
    uint8_t interleave      # that the sums of pairs are of
    uint8_t begun           # whether a report was taken

# Takes a report whose check holds. k (1 and up): source symbols of a block, as they are on the average; interleave_now
# (1 and up): of the blocks that end now; now_ns: any clock that goes forward. repairs and interleave, of the sender's
# next blocks, are set as soon as something is known (0 repairs only where the table allows no others), and left alone
# until then. Half a microsecond.
# False: refused, and nothing changed: its number is not newer than the last one's. (But after 5 s without a newer one,
# any other number may be that of a peer that began again.)
cdef bint adapt_report(fec_adapt *state, const fec_levels *levels, const fec_report *report, uint32_t k,
                       uint32_t interleave_now, uint64_t now_ns, uint32_t *repairs,
                       uint32_t *interleave) noexcept nogil

# The loss that adapt_report went by, with its margin.
cdef double adapt_loss(const fec_adapt *state) noexcept nogil
