"""The records of packets that modules hold, for the case that they leave as they came. Each has a place from the start
of its packet's way on."""

from libc.stdint cimport uint8_t, uint32_t

from layer45.fastpath.capture cimport l45_record
from layer45.fastpath.pcap cimport pcap_pkthdr

cdef struct l45_original:
    pcap_pkthdr header
    uint8_t *bytes          # NULL: not put aside
    uint32_t next_free

cdef struct l45_aside:      # zero at its start
    l45_original *originals
    uint32_t unused

# Room for so many; 0, or -1 when there is no memory. There must be one more than workers may hold.
cdef int aside_start(l45_aside *aside, uint32_t count) noexcept nogil
cdef void aside_end(l45_aside *aside) noexcept nogil
cdef int aside_keep(l45_aside *aside, uint32_t place, const l45_record *record) noexcept nogil


cdef inline uint32_t aside_take(l45_aside *aside) noexcept nogil:
    cdef uint32_t place = aside.unused
    aside.unused = aside.originals[place].next_free
    return place


cdef inline void aside_give(l45_aside *aside, uint32_t place) noexcept nogil:
    aside.originals[place].next_free = aside.unused
    aside.unused = place
