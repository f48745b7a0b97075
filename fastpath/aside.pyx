"""See aside.pxd."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from layer45.fastpath.capture cimport l45_record


cdef int aside_start(l45_aside *aside, uint32_t count) noexcept nogil:
    cdef uint32_t at
    aside.originals = <l45_original *> calloc(count + 1, sizeof(l45_original))
    if aside.originals == NULL:
        return -1
    for at in range(count):
        aside.originals[at].next_free = at + 1
    return 0


cdef void aside_end(l45_aside *aside) noexcept nogil:
    """None is kept any more."""
    free(aside.originals)
    aside.originals = NULL


cdef int aside_keep(l45_aside *aside, uint32_t place, const l45_record *record) noexcept nogil:
    """0, or -1 when there is no memory."""
    cdef l45_original *original = &aside.originals[place]
    original.bytes = <uint8_t *> malloc(record.header.caplen)
    if original.bytes == NULL:
        return -1
    original.header = record.header[0]
    memcpy(original.bytes, record.bytes, record.header.caplen)
    return 0
