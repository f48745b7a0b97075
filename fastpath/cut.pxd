"""Cuts a segment that outgrew what fits in one: the first part stays where it is, the others leave right behind it."""

from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.pool cimport l45_carrier
from layer45.fastpath.stream cimport l45_connection

# For a TCP packet whose chain is done, before seal. 0, or -1: it must be cut, but it came corrupt, and its parts would
# not be.
cdef int cut(l45_worker *worker, l45_carrier *carrier, const l45_connection *connection) noexcept nogil
