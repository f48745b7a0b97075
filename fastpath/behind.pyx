"""See behind.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from layer45.fastpath.capture cimport l45_writer, write_packet
from layer45.fastpath.pool cimport l45_carrier

cdef struct copy_head:
    uint64_t time_ns
    uint32_t note_bytes
    uint32_t packet_bytes


cdef int behind_keep(l45_behind *behind, const l45_carrier *carrier, uint64_t time_ns) noexcept nogil:
    cdef copy_head head
    cdef uint8_t *at
    cdef size_t wanted
    head.time_ns = time_ns
    head.note_bytes = carrier.note_bytes
    head.packet_bytes = <uint32_t> (carrier.packet.tail - carrier.packet.data)
    wanted = behind.used + sizeof(head) + head.note_bytes + head.packet_bytes
    if wanted > behind.room:
        at = <uint8_t *> realloc(behind.bytes, 2 * wanted)
        if at == NULL:
            return -1
        behind.bytes = at
        behind.room = 2 * wanted
    at = behind.bytes + behind.used
    memcpy(at, &head, sizeof(head))
    memcpy(at + sizeof(head), carrier.note, head.note_bytes)
    memcpy(at + sizeof(head) + head.note_bytes, carrier.packet.data, head.packet_bytes)
    behind.used = wanted
    return 0


cdef void behind_write(l45_behind *behind, l45_writer *writer) noexcept nogil:
    cdef uint8_t *at = behind.bytes
    cdef copy_head head
    while at < behind.bytes + behind.used:
        memcpy(&head, at, sizeof(head))
        at += sizeof(head)
        write_packet(writer, head.time_ns, at, head.note_bytes, at + head.note_bytes, head.packet_bytes)
        at += head.note_bytes + head.packet_bytes
    behind.used = 0


cdef void behind_end(l45_behind *behind) noexcept nogil:
    free(behind.bytes)
    behind.bytes = NULL
