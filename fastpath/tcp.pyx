"""See tcp.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memmove

from layer45.fastpath.abi cimport l45_packet
from layer45.fastpath.packet cimport begin_edit, load_be16


cdef inline uint32_t _next(const l45_packet *packet, uint32_t at) noexcept nogil:
    """Behind the option at `at`; 0 where its length lies."""
    cdef uint8_t count
    if packet.data[at] == OPTION_NOP:
        return at + 1
    if at + 1 >= packet.payload_offset:
        return 0
    count = packet.data[at + 1]
    if count < 2 or count > packet.payload_offset - at:
        return 0
    return at + count


cdef bint options_sound(const l45_packet *packet) noexcept nogil:
    """Whether no option lies about its length."""
    cdef uint32_t at = packet.l4_offset + TCP_HEADER_BYTES
    while at < packet.payload_offset and packet.data[at] != OPTION_END:
        at = _next(packet, at)
        if at == 0:
            return False
    return True


cdef l45_option option_find(const l45_packet *packet, uint8_t kind) noexcept nogil:
    """The first option of this kind, at least 2 bytes long; nothing behind one that lies is looked at."""
    return _find(packet, kind, -1)


cdef l45_option option_experiment(const l45_packet *packet, uint8_t kind, uint16_t exid) noexcept nogil:
    """The first option of this kind, one of the two for experiments, with this 16-bit ExID (RFC 6994)."""
    return _find(packet, kind, exid)


cdef inline l45_option _find(const l45_packet *packet, uint8_t kind, int exid) noexcept nogil:
    cdef l45_option found
    cdef uint32_t at = packet.l4_offset + TCP_HEADER_BYTES, behind
    found.at = 0
    found.bytes = 0
    while at < packet.payload_offset and packet.data[at] != OPTION_END:
        behind = _next(packet, at)
        if behind == 0:
            break
        if packet.data[at] == kind and (exid < 0 or behind - at >= 4 and load_be16(packet.data + at + 2) == exid):
            found.at = at
            found.bytes = behind - at
            break
        at = behind
    return found


cdef int option_insert(l45_packet *packet, const uint8_t *bytes, uint32_t count) noexcept nogil:
    """Makes these the first options; count is a multiple of 4. 0, or -1 with nothing changed: no room."""
    cdef uint32_t in_front = packet.l4_offset + TCP_HEADER_BYTES
    if count > option_room(packet) or count > packet.data - packet.head:
        return -1
    begin_edit(packet)
    memmove(packet.data - count, packet.data, in_front)
    packet.data -= count
    memcpy(packet.data + in_front, bytes, count)
    _set_header_bytes(packet, packet.payload_offset - packet.l4_offset + count)
    return 0


cdef void option_remove(l45_packet *packet, l45_option option) noexcept nogil:
    """Takes out an option whose length is a multiple of 4."""
    begin_edit(packet)
    memmove(packet.data + option.bytes, packet.data, option.at)
    packet.data += option.bytes
    _set_header_bytes(packet, packet.payload_offset - packet.l4_offset - option.bytes)


cdef inline void _set_header_bytes(l45_packet *packet, uint32_t count) noexcept nogil:
    cdef uint8_t *field = tcp_header(packet) + 12
    field[0] = <uint8_t> ((count >> 2) << 4 | field[0] & 0x0F)
    packet.payload_offset = <uint16_t> (packet.l4_offset + count)
