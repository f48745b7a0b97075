"""Cuts a segment that outgrew what fits in one: the first part stays where it is, the others leave right behind it."""

from libc.stdint cimport uint32_t

from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.pool cimport l45_carrier

# For a TCP packet whose chain is done, before seal. mss: the peer's, or 0. 0, or -1: it must be cut, but it came
# corrupt, and its parts would not be.
cdef int cut(l45_worker *worker, l45_carrier *carrier, uint32_t mss) noexcept nogil
