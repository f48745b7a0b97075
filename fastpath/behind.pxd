"""Copies that are made while a replay processes a packet: they wait until it is written, and leave behind it.

So they do on a live host, whose verdicts are sent before its copies.
"""

from libc.stdint cimport uint8_t, uint64_t

from layer45.fastpath.capture cimport l45_writer
from layer45.fastpath.pool cimport l45_carrier

cdef struct l45_behind:     # zero at its start
    uint8_t *bytes          # of each: a head, its note, its packet
    size_t used
    size_t room

# Keeps a copy. 0, or -1 when there is no memory.
cdef int behind_keep(l45_behind *behind, const l45_carrier *carrier, uint64_t time_ns) noexcept nogil
cdef void behind_write(l45_behind *behind, l45_writer *writer) noexcept nogil
cdef void behind_end(l45_behind *behind) noexcept nogil
