"""Finds a packet's headers, and writes lengths and checksums back when a chain is done with it."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport (
    L45_EDITED, L45_GSO, L45_PARTIAL, L45_SUMMED, L45_TRUNCATED, l45_packet,
)
from layer45.fastpath.checksum cimport replace_summed, sum_add, sum_bytes, sum_subtract

cdef enum:
    MAXIMUM_EXTENSIONS = 8
    HEADER_HOP_BY_HOP = 0
    HEADER_ROUTING = 43
    HEADER_FRAGMENT = 44
    HEADER_DESTINATION = 60
    IPV4_FRAGMENT_BITS = 0x3FFF  # more-fragments flag and offset
    IPV4_DONT_FRAGMENT = 0x40    # in byte 6


cdef parse_result parse(l45_packet *packet) noexcept nogil:
    """Fills ip_version, protocol, offsets and wire_bytes; trims bytes behind the IP packet (link padding).

    The caller set data, tail and flags. A packet that is refused has only these changed, and is not for editing.
    """
    if packet.tail - packet.data < 20:
        return PARSE_SHORT
    packet.ip_version = packet.data[0] >> 4
    if packet.ip_version == 4:
        return _parse_ipv4(packet)
    if packet.ip_version == 6:
        return _parse_ipv6(packet)
    return PARSE_MALFORMED


cdef inline uint32_t _told(const l45_packet *packet, uint32_t field, uint32_t more) noexcept nogil:
    """The packet's length. A super-packet that outgrew the field has 0 there: what the kernel says beside it counts."""
    return packet.wire_bytes if field == 0 and packet.flags & L45_GSO else field + more


cdef inline parse_result _trim(l45_packet *packet, uint32_t total) noexcept nogil:
    cdef uint32_t available = <uint32_t> (packet.tail - packet.data)
    if total > available and not packet.flags & L45_TRUNCATED:
        return PARSE_MALFORMED
    if total <= available:
        packet.tail = packet.data + total
        packet.flags &= ~L45_TRUNCATED
    packet.wire_bytes = total
    return PARSED


cdef parse_result _parse_ipv4(l45_packet *packet) noexcept nogil:
    cdef uint8_t *header = packet.data
    cdef uint32_t header_bytes = (header[0] & 0x0F) * 4
    cdef uint32_t total = _told(packet, load_be16(header + 2), 0)
    cdef parse_result result
    if header_bytes < 20 or total < header_bytes:
        return PARSE_MALFORMED
    result = _trim(packet, total)
    if result != PARSED:
        return result
    if load_be16(header + 6) & IPV4_FRAGMENT_BITS:
        return PARSE_FRAGMENT
    packet.l4_offset = <uint16_t> header_bytes
    packet.protocol = header[9]
    return _parse_l4(packet)


cdef parse_result _parse_ipv6(l45_packet *packet) noexcept nogil:
    cdef uint32_t offset = 40, seen = 0
    cdef uint8_t next_header = packet.data[6]
    cdef parse_result result
    if packet.tail - packet.data < 40:
        return PARSE_SHORT
    result = _trim(packet, _told(packet, load_be16(packet.data + 4), 40))
    if result != PARSED:
        return result
    while next_header in (HEADER_HOP_BY_HOP, HEADER_ROUTING, HEADER_DESTINATION):
        seen += 1
        if seen > MAXIMUM_EXTENSIONS:
            return PARSE_TOO_MANY_HEADERS
        if offset + 8 > packet.tail - packet.data:
            return PARSE_SHORT
        next_header = packet.data[offset]
        offset += (packet.data[offset + 1] + 1) * 8
    if next_header == HEADER_FRAGMENT:
        return PARSE_FRAGMENT
    packet.l4_offset = <uint16_t> offset
    packet.protocol = next_header
    return _parse_l4(packet)


cdef inline parse_result _parse_l4(l45_packet *packet) noexcept nogil:
    cdef int64_t available = (packet.tail - packet.data) - packet.l4_offset
    cdef uint8_t *l4 = packet.data + packet.l4_offset
    cdef uint32_t header_bytes = 8
    if packet.protocol == PROTOCOL_TCP:
        if available < 20:
            return PARSE_SHORT
        header_bytes = (l4[12] >> 4) * 4
        if header_bytes < 20:
            return PARSE_MALFORMED
    elif packet.protocol != PROTOCOL_UDP:
        return PARSE_OTHER_PROTOCOL
    if available < header_bytes:
        return PARSE_SHORT
    if packet.protocol == PROTOCOL_UDP and load_be16(l4 + 4) != packet.wire_bytes - packet.l4_offset:
        return PARSE_MALFORMED
    packet.payload_offset = <uint16_t> (packet.l4_offset + header_bytes)
    return PARSED


cdef void seal(l45_packet *packet) noexcept nogil:
    """Makes lengths and checksums true after edits; nothing to do for an unedited packet."""
    cdef uint32_t l4_before_bytes = packet.wire_bytes - packet.l4_offset
    if not packet.flags & L45_EDITED:
        return
    packet.wire_bytes = <uint32_t> (packet.tail - packet.data)
    _write_ip_length(packet)
    if packet.protocol == PROTOCOL_UDP:
        store_be16(packet.data + packet.l4_offset + 4, packet.wire_bytes - packet.l4_offset)
    if packet.flags & L45_PARTIAL:
        _complete_checksum(packet, l4_before_bytes)
    elif packet.flags & L45_SUMMED:
        _write_checksum(packet, sum_add(header_sum(packet), packet.payload_sum))
    packet.flags &= ~(L45_PARTIAL | L45_SUMMED)


cdef void _write_ip_length(l45_packet *packet) noexcept nogil:
    cdef uint8_t word[2]
    if packet.ip_version == 6:
        store_be16(packet.data + 4, packet.wire_bytes - 40)
        return
    store_be16(word, packet.wire_bytes)
    write_ipv4_word(packet, 2, word)


cdef void write_ipv4_word(l45_packet *packet, size_t offset, const uint8_t *word) noexcept nogil:
    """Replaces 16 bits of the IPv4 header and updates its checksum."""
    replace_summed(packet.data + 10, packet.data + offset, word, 2)


cdef void _complete_checksum(l45_packet *packet, uint32_t l4_before_bytes) noexcept nogil:
    """The field holds the kernel's pseudo-header sum, which knows the final address behind a routing header.

    A payload that was summed while it was changed is not read again.
    """
    cdef uint8_t lengths[4]
    cdef uint32_t l4_bytes = packet.wire_bytes - packet.l4_offset
    cdef uint32_t summed_bytes = packet.payload_offset - packet.l4_offset if packet.flags & L45_SUMMED else l4_bytes
    cdef uint32_t total = sum_bytes(packet.data + packet.l4_offset, summed_bytes)
    if packet.flags & L45_SUMMED:
        total = sum_add(total, packet.payload_sum)
    store_be16(lengths, l4_before_bytes)
    store_be16(lengths + 2, l4_bytes)
    total = sum_add(sum_subtract(total, sum_bytes(lengths, 2)), sum_bytes(lengths + 2, 2))
    _write_checksum(packet, total)


cdef void _write_checksum(l45_packet *packet, uint32_t total) noexcept nogil:
    cdef uint16_t field = <uint16_t> (total ^ 0xFFFF)
    if field == 0 and packet.protocol == PROTOCOL_UDP:
        field = 0xFFFF
    memcpy(packet.data + checksum_offset(packet), &field, 2)


cdef void allow_fragments(l45_packet *packet, uint16_t identification) noexcept nogil:
    """Clears the don't-fragment bit of an IPv4 packet; one without an identification gets this one."""
    cdef uint8_t word[2]
    if packet.ip_version != 4 or not packet.data[6] & IPV4_DONT_FRAGMENT:
        return
    if load_be16(packet.data + 4) == 0:
        store_be16(word, identification if identification else 1)
        write_ipv4_word(packet, 4, word)
    word[0] = packet.data[6] & <uint8_t> ~IPV4_DONT_FRAGMENT
    word[1] = packet.data[7]
    write_ipv4_word(packet, 6, word)


cdef void identify(l45_packet *packet, uint16_t identification) noexcept nogil:
    """Gives an IPv4 copy an identification of its own, or fragments of copy and original would be put together.

    One without (an atomic datagram, RFC 6864) stays without.
    """
    cdef uint8_t word[2]
    if packet.ip_version != 4 or load_be16(packet.data + 4) == 0:
        return
    store_be16(word, identification if identification else 1)
    write_ipv4_word(packet, 4, word)


RESULTS = {
    PARSED: "parsed",
    PARSE_SHORT: "short",
    PARSE_MALFORMED: "malformed",
    PARSE_FRAGMENT: "fragment",
    PARSE_OTHER_PROTOCOL: "other_protocol",
    PARSE_TOO_MANY_HEADERS: "too_many_headers",
}


cdef void _xor_position(const void *mask, uint64_t position, uint8_t *bytes, uint32_t count) noexcept nogil:
    cdef uint32_t at
    for at in range(count):
        bytes[at] ^= <uint8_t> (position + at) ^ (<const uint8_t *> mask)[0]


cdef class Editor:
    """A packet in a buffer of its own with the hot path's edits, for tests and tools; not for the hot path.

    data: the IP packet. room_bytes: free space in front and behind. partial: its L4 checksum field holds the
    pseudo-header sum only. Edits raise ValueError when the hot path refuses them.
    """
    cdef l45_packet packet
    cdef bytearray buffer
    cdef readonly str result

    def __init__(self, bytes data, uint32_t room_bytes=128, bint partial=False, bint truncated=False):
        cdef uint8_t *start
        self.buffer = bytearray(room_bytes) + data + bytearray(room_bytes)
        start = <uint8_t *> <char *> self.buffer
        memset(&self.packet, 0, sizeof(l45_packet))
        self.packet.head = start
        self.packet.data = start + room_bytes
        self.packet.tail = self.packet.data + len(data)
        self.packet.end = start + len(self.buffer)
        self.packet.flags = (L45_PARTIAL if partial else 0) | (L45_TRUNCATED if truncated else 0)
        self.result = RESULTS[parse(&self.packet)]

    @property
    def payload(self) -> bytes:
        return payload(&self.packet)[:payload_bytes(&self.packet)]

    @property
    def fields(self) -> dict:
        return {
            "ip_version": self.packet.ip_version, "protocol": self.packet.protocol,
            "l4_offset": self.packet.l4_offset, "payload_offset": self.packet.payload_offset,
            "wire_bytes": self.packet.wire_bytes,
        }

    def insert_front(self, bytes data) -> None:
        self._check(insert_front(&self.packet, data, <uint32_t> len(data)))

    def insert_back(self, bytes data) -> None:
        self._check(insert_back(&self.packet, data, <uint32_t> len(data)))

    def remove_front(self, uint32_t count) -> None:
        self._check(remove_front(&self.packet, count))

    def remove_back(self, uint32_t count) -> None:
        self._check(remove_back(&self.packet, count))

    def change(self, uint32_t offset, bytes data) -> None:
        self._check(begin_change(&self.packet, offset, <uint32_t> len(data)))
        memcpy(payload(&self.packet) + offset, <const uint8_t *> data, len(data))
        end_change(&self.packet, offset, <uint32_t> len(data))

    def change_in_pieces(self, uint32_t first, uint32_t last, uint8_t mask) -> None:
        """XORs bytes [first, last) with their position from first, and with mask."""
        if not first <= last <= payload_bytes(&self.packet):
            raise ValueError("no such bytes")
        change_in_pieces(&self.packet, first, last, _xor_position, &mask, 0)

    def allow_fragments(self, uint16_t identification) -> None:
        allow_fragments(&self.packet, identification)

    @property
    def dscp(self) -> int:
        return dscp_of(&self.packet)

    def set_dscp(self, uint8_t dscp) -> bool:
        """Whether it was another."""
        cdef int changed = set_dscp(&self.packet, dscp)
        self._check(min(changed, 0))
        return changed == 1

    def seal(self) -> bytes:
        """The whole IP packet, lengths and checksums true."""
        seal(&self.packet)
        return self.packet.data[:self.packet.tail - self.packet.data]

    def _check(self, int result) -> None:
        if result:
            raise ValueError("the packet has no room for this edit")
