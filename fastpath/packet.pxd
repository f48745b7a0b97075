"""A packet's layout, and the edits a module makes to its payload.

An edit keeps `payload_sum` true by arithmetic on the bytes that come and go, never by reading the rest, so that a
checksum that was wrong on arrival is still wrong, by as much, after any chain (a repaired one would hide corruption).
Lengths and checksums in the headers are written once, by `seal`, when the chain is done.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from layer45.fastpath.abi cimport (
    L45_EDITED, L45_NO_SUM, L45_PARTIAL, L45_SUMMED, L45_TRUNCATED, l45_packet,
)
from layer45.fastpath.checksum cimport fold, sum_add, sum_at, sum_bytes, sum_subtract

cdef enum:
    PROTOCOL_TCP = 6
    PROTOCOL_UDP = 17
    LARGEST_PACKET_BYTES = 65531  # what one netlink attribute carries
    SMALLEST_IPV6_MTU = 1280      # no sender needs to send less at once (RFC 8200 section 5)
    PIECE_BYTES = 4096            # of a payload that is changed in place: even, and small enough for the nearest cache

# Why `parse` refused a packet; each is a counter of the worker.
cdef enum parse_result:
    PARSED = 0
    PARSE_SHORT            # fewer bytes than the headers need
    PARSE_MALFORMED        # a length field or version that lies
    PARSE_FRAGMENT         # not the whole datagram
    PARSE_OTHER_PROTOCOL   # neither UDP nor TCP
    PARSE_TOO_MANY_HEADERS  # an IPv6 extension chain longer than MAXIMUM_EXTENSIONS

cdef parse_result parse(l45_packet *packet) noexcept nogil
cdef void seal(l45_packet *packet) noexcept nogil
cdef void write_ipv4_word(l45_packet *packet, size_t offset, const uint8_t *word) noexcept nogil
cdef void allow_fragments(l45_packet *packet, uint16_t identification) noexcept nogil
cdef void identify(l45_packet *packet, uint16_t identification) noexcept nogil


cdef inline uint16_t load_be16(const uint8_t *at) noexcept nogil:
    return <uint16_t> (at[0] << 8 | at[1])


cdef inline uint32_t load_be32(const uint8_t *at) noexcept nogil:
    return <uint32_t> at[0] << 24 | <uint32_t> at[1] << 16 | <uint32_t> at[2] << 8 | at[3]


cdef inline void store_be16(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t> (value >> 8)
    at[1] = <uint8_t> value


cdef inline void store_be32(uint8_t *at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t> (value >> 24)
    at[1] = <uint8_t> (value >> 16)
    at[2] = <uint8_t> (value >> 8)
    at[3] = <uint8_t> value


cdef inline uint8_t *payload(const l45_packet *packet) noexcept nogil:
    return packet.data + packet.payload_offset


cdef inline uint32_t payload_bytes(const l45_packet *packet) noexcept nogil:
    return <uint32_t> (packet.tail - packet.data) - packet.payload_offset


cdef inline size_t checksum_offset(const l45_packet *packet) noexcept nogil:
    return packet.l4_offset + (6 if packet.protocol == PROTOCOL_UDP else 16)


cdef inline uint32_t pseudo_header_sum(const l45_packet *packet) noexcept nogil:
    """RFC 768, RFC 9293 section 3.1, RFC 8200 section 8.1: addresses, protocol and L4 length."""
    cdef uint32_t l4_bytes = <uint32_t> (packet.tail - packet.data) - packet.l4_offset
    cdef uint8_t rest[4]
    cdef uint32_t addresses
    if packet.ip_version == 4:
        addresses = sum_bytes(packet.data + 12, 8)
    else:
        addresses = sum_bytes(packet.data + 8, 32)
    rest[0] = 0
    rest[1] = packet.protocol
    store_be16(rest + 2, l4_bytes)
    return sum_add(addresses, sum_bytes(rest, 4))


cdef inline uint32_t header_sum(const l45_packet *packet) noexcept nogil:
    """Pseudo header and L4 header, without the checksum field itself."""
    cdef uint16_t field
    cdef uint32_t total
    memcpy(&field, packet.data + checksum_offset(packet), 2)
    total = sum_bytes(packet.data + packet.l4_offset, packet.payload_offset - packet.l4_offset)
    return sum_add(pseudo_header_sum(packet), sum_subtract(total, field))


cdef inline void begin_edit(l45_packet *packet) noexcept nogil:
    """Learns what the checksum claims of the payload, before the first change to anything it covers."""
    cdef uint16_t field
    if packet.flags & (L45_SUMMED | L45_NO_SUM | L45_PARTIAL):
        packet.flags |= L45_EDITED
        return
    memcpy(&field, packet.data + checksum_offset(packet), 2)
    if packet.protocol == PROTOCOL_UDP and field == 0:
        packet.flags |= L45_EDITED | L45_NO_SUM
        return
    packet.payload_sum = sum_subtract(field ^ 0xFFFF, header_sum(packet))
    packet.flags |= L45_EDITED | L45_SUMMED


cdef inline bint editable(const l45_packet *packet) noexcept nogil:
    return not packet.flags & L45_TRUNCATED


cdef inline uint8_t dscp_of(const l45_packet *packet) noexcept nogil:
    """The upper six bits of the DS field (RFC 2474, RFC 3168): IPv4's type of service, IPv6's traffic class."""
    if packet.ip_version == 4:
        return packet.data[1] >> 2
    return <uint8_t> ((packet.data[0] & 0x0F) << 2 | packet.data[1] >> 6)


cdef inline int set_dscp(l45_packet *packet, uint8_t dscp) noexcept nogil:
    """Writes them; the ECN bits stay. 1: they were others, 0: they were these already, -1: not to be edited.

    No checksum of UDP or TCP covers them, so none is touched; the whole packet goes back with the verdict all the same.
    """
    cdef uint8_t word[2]
    if not editable(packet):
        return -1
    if dscp_of(packet) == dscp:
        return 0
    packet.flags |= L45_EDITED
    if packet.ip_version == 4:
        word[0] = packet.data[0]
        word[1] = <uint8_t> (dscp << 2) | packet.data[1] & 0x03
        write_ipv4_word(packet, 0, word)
    else:
        packet.data[0] = packet.data[0] & 0xF0 | dscp >> 2
        packet.data[1] = <uint8_t> (dscp << 6) | packet.data[1] & 0x3F
    return 1


cdef inline int insert_back(l45_packet *packet, const uint8_t *bytes, uint32_t count) noexcept nogil:
    """Puts bytes behind the payload. 0, or -1 with nothing changed: no room, or longer than a verdict can carry."""
    cdef size_t offset = payload_bytes(packet)
    if not editable(packet) or count > packet.end - packet.tail \
            or (packet.tail - packet.data) + count > LARGEST_PACKET_BYTES:
        return -1
    begin_edit(packet)
    memcpy(packet.tail, bytes, count)
    packet.tail += count
    if packet.flags & L45_SUMMED:
        packet.payload_sum = sum_add(packet.payload_sum, sum_at(sum_bytes(bytes, count), offset))
    return 0


cdef inline int insert_front(l45_packet *packet, const uint8_t *bytes, uint32_t count) noexcept nogil:
    """Puts bytes between the L4 header and the payload, moving the headers. 0, or -1 with nothing changed."""
    if not editable(packet) or count > packet.data - packet.head \
            or (packet.tail - packet.data) + count > LARGEST_PACKET_BYTES:
        return -1
    begin_edit(packet)
    memmove(packet.data - count, packet.data, packet.payload_offset)
    packet.data -= count
    memcpy(payload(packet), bytes, count)
    if packet.flags & L45_SUMMED:
        packet.payload_sum = sum_add(sum_at(packet.payload_sum, count), sum_bytes(bytes, count))
    return 0


cdef inline int remove_back(l45_packet *packet, uint32_t count) noexcept nogil:
    """Takes the last bytes of the payload. 0, or -1 with nothing changed: it is shorter than that."""
    if not editable(packet) or count > payload_bytes(packet):
        return -1
    begin_edit(packet)
    packet.tail -= count
    if packet.flags & L45_SUMMED:
        packet.payload_sum = sum_subtract(
            packet.payload_sum, sum_at(sum_bytes(packet.tail, count), payload_bytes(packet)))
    return 0


cdef inline int remove_front(l45_packet *packet, uint32_t count) noexcept nogil:
    """Takes the first bytes of the payload, moving the headers. 0, or -1 with nothing changed."""
    if not editable(packet) or count > payload_bytes(packet):
        return -1
    begin_edit(packet)
    if packet.flags & L45_SUMMED:
        packet.payload_sum = sum_at(
            sum_subtract(packet.payload_sum, sum_bytes(payload(packet), count)), count)
    memmove(packet.data + count, packet.data, packet.payload_offset)
    packet.data += count
    return 0


cdef inline int claim_back(l45_packet *packet, uint32_t count) noexcept nogil:
    """As insert_back, of bytes that the caller has written behind the payload already, where room_back says there is
    room."""
    cdef size_t offset = payload_bytes(packet)
    if not editable(packet) or count > room_back(packet):
        return -1
    begin_edit(packet)
    if packet.flags & L45_SUMMED:
        packet.payload_sum = sum_add(packet.payload_sum, sum_at(sum_bytes(packet.tail, count), offset))
    packet.tail += count
    return 0


cdef inline uint32_t room_back(const l45_packet *packet) noexcept nogil:
    """How many bytes fit behind the payload."""
    cdef ptrdiff_t room = min(packet.end - packet.tail, LARGEST_PACKET_BYTES - (packet.tail - packet.data))
    return <uint32_t> max(room, 0)


cdef inline bint sum_holds(const l45_packet *packet) noexcept nogil:
    """Whether the payload is what the checksum claims of it; of a packet whose checksum claims nothing, yes."""
    cdef uint16_t field
    cdef uint32_t claimed = packet.payload_sum
    if packet.flags & (L45_NO_SUM | L45_PARTIAL):
        return True
    if not packet.flags & L45_SUMMED:
        memcpy(&field, packet.data + checksum_offset(packet), 2)
        if packet.protocol == PROTOCOL_UDP and field == 0:
            return True
        claimed = sum_subtract(field ^ 0xFFFF, header_sum(packet))
    claimed = sum_subtract(claimed, sum_bytes(payload(packet), payload_bytes(packet)))
    return claimed == 0 or claimed == 0xFFFF


cdef inline int begin_change(l45_packet *packet, uint32_t offset, uint32_t count) noexcept nogil:
    """Before writing over payload bytes in place: forgets them in the sum. 0, or -1: not inside the payload."""
    if not editable(packet) or offset > payload_bytes(packet) or count > payload_bytes(packet) - offset:
        return -1
    begin_edit(packet)
    if packet.flags & L45_SUMMED:
        packet.payload_sum = sum_subtract(
            packet.payload_sum, sum_at(sum_bytes(payload(packet) + offset, count), offset))
    return 0


cdef inline void end_change(l45_packet *packet, uint32_t offset, uint32_t count) noexcept nogil:
    """After writing: counts the bytes that begin_change forgot, with their new values."""
    if packet.flags & L45_SUMMED:
        packet.payload_sum = sum_add(
            packet.payload_sum, sum_at(sum_bytes(payload(packet) + offset, count), offset))


# Writes over count payload bytes, the first of which stands at `position` of whatever `using` describes.
ctypedef void (*l45_change)(const void *using, uint64_t position, uint8_t *bytes, uint32_t count) noexcept nogil


cdef inline void change_in_pieces(l45_packet *packet, uint32_t first, uint32_t last, l45_change change,
                                  const void *using, uint64_t position) noexcept nogil:
    """Changes payload bytes [first, last) of an editable packet in place; position is that of the first.

    A piece is summed before and after while it is in the nearest cache. A whole payload whose checksum is still to be
    computed is summed on the way: `seal` need not read it again.
    """
    cdef bint fresh = packet.flags & L45_PARTIAL and first == 0 and last == payload_bytes(packet)
    cdef uint32_t count
    if fresh:
        packet.payload_sum = 0
        packet.flags |= L45_SUMMED
    while first < last:
        count = min(<uint32_t> PIECE_BYTES, last - first)
        if fresh:
            begin_edit(packet)
        else:
            begin_change(packet, first, count)
        change(using, position, payload(packet) + first, count)
        end_change(packet, first, count)
        first += count
        position += count
