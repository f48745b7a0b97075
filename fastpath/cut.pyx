"""See cut.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from layer45.fastpath.abi cimport L45_EDITED, L45_EGRESS, L45_GSO, L45_REWRITTEN, L45_SUMMED, l45_packet
from layer45.fastpath.checksum cimport sum_bytes
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport COUNT_SEGMENTS_CUT
from layer45.fastpath.packet cimport (
    LARGEST_PACKET_BYTES, begin_edit, identify, load_be16, payload, payload_bytes, seal, store_be16,
    store_be32, sum_holds,
)
from layer45.fastpath.pool cimport HEAD_ROOM_BYTES, ORIGIN_CLONE, POOL_BUFFER_BYTES, l45_carrier
from layer45.fastpath.stream cimport l45_connection
from layer45.fastpath.tcp cimport (
    TCP_FIN, TCP_FLAGS, TCP_HEADER_BYTES, TCP_PSH, TCP_SEQUENCE, TCP_SYN, TCP_URG, TCP_URGENT, tcp_flags,
    tcp_header, tcp_sequence,
)

cdef enum:
    ASSUMED_MTU = 1500  # of a device that is not known


cdef int cut(l45_worker *worker, l45_carrier *carrier, const l45_connection *connection) noexcept nogil:
    """The kernel cuts a super-packet itself, but one message to it holds LARGEST_PACKET_BYTES."""
    cdef l45_packet *packet = &carrier.packet
    cdef uint32_t mtu = _mtu(carrier, connection, LARGEST_PACKET_BYTES)
    cdef uint32_t limit = LARGEST_PACKET_BYTES if packet.flags & L45_GSO else min(mtu, <uint32_t> LARGEST_PACKET_BYTES)
    cdef uint32_t total = <uint32_t> (packet.tail - packet.data), first_bytes
    if total <= limit or packet.direction != L45_EGRESS or payload_bytes(packet) == 0 \
            or limit <= packet.payload_offset:
        return 0
    begin_edit(packet)
    if not sum_holds(packet):
        return -1
    worker.counters[COUNT_SEGMENTS_CUT] += 1
    if tcp_flags(packet) & TCP_SYN:  # what it does not carry goes later, as what the peer did not take
        _shorten(packet, limit - packet.payload_offset)
        return 0
    worker.cut = True
    first_bytes = limit - packet.payload_offset
    if packet.flags & L45_GSO:
        first_bytes = _whole_segments(first_bytes, _segment_bytes(packet, connection.mss, mtu))
    _send_rest(worker, carrier, first_bytes, min(limit, _mtu(carrier, connection, ASSUMED_MTU)))
    _shorten(packet, first_bytes)
    return 0


cdef inline uint32_t _mtu(const l45_carrier *carrier, const l45_connection *connection,
                          uint32_t unknown) noexcept nogil:
    """The device's, or the path's where that is smaller. unknown: the device's, where it is not known."""
    cdef uint32_t mtu = carrier.mtu if carrier.mtu else unknown
    return min(mtu, <uint32_t> connection.path_mtu) if connection.path_mtu else mtu


cdef inline uint32_t _segment_bytes(const l45_packet *packet, uint32_t mss, uint32_t mtu) noexcept nogil:
    """What the kernel will cut a super-packet into: as much as the peer takes and the device, less the options."""
    cdef uint32_t fitting = min(mss, mtu - packet.l4_offset - TCP_HEADER_BYTES)
    return fitting - min(fitting, packet.payload_offset - packet.l4_offset - <uint32_t> TCP_HEADER_BYTES)


cdef inline uint32_t _whole_segments(uint32_t count, uint32_t segment_bytes) noexcept nogil:
    return count - count % segment_bytes if 0 < segment_bytes <= count else count


cdef void _send_rest(l45_worker *worker, const l45_carrier *carrier, uint32_t first_bytes,
                     uint32_t piece_bytes) noexcept nogil:
    """The payload from first_bytes on, in packets of up to piece_bytes."""
    cdef uint32_t at = first_bytes, total = payload_bytes(&carrier.packet), count
    while at < total:
        count = min(piece_bytes - carrier.packet.payload_offset, total - at)
        _send_piece(worker, carrier, at, count)
        at += count


cdef void _send_piece(l45_worker *worker, const l45_carrier *carrier, uint32_t at, uint32_t count) noexcept nogil:
    cdef l45_carrier piece = carrier[0]
    cdef uint32_t header_bytes = carrier.packet.payload_offset
    piece.packet.origin = ORIGIN_CLONE
    piece.packet.head = worker.piece
    piece.packet.end = worker.piece + POOL_BUFFER_BYTES
    piece.packet.data = worker.piece + HEAD_ROOM_BYTES
    piece.packet.tail = piece.packet.data + header_bytes + count
    piece.packet.flags = L45_EDITED | L45_SUMMED
    memcpy(piece.packet.data, carrier.packet.data, header_bytes)
    memcpy(piece.packet.data + header_bytes, payload(&carrier.packet) + at, count)
    piece.packet.payload_sum = sum_bytes(piece.packet.data + header_bytes, count)
    worker.identification += 1
    identify(&piece.packet, <uint16_t> worker.identification)
    _number(&piece.packet, at, at + count == payload_bytes(&carrier.packet))
    seal(&piece.packet)
    worker.sink.finish(worker.sink.self, &piece, L45_REWRITTEN)


cdef inline void _number(l45_packet *packet, uint32_t at, bint last) noexcept nogil:
    """Makes a copy of the header that of the part which begins `at` bytes into the payload."""
    cdef uint8_t *header = tcp_header(packet)
    cdef uint32_t urgent = load_be16(header + TCP_URGENT)
    store_be32(header + TCP_SEQUENCE, tcp_sequence(packet) + at)
    if not last:
        header[TCP_FLAGS] &= <uint8_t> ~(TCP_FIN | TCP_PSH)
    if header[TCP_FLAGS] & TCP_URG and urgent <= at:
        header[TCP_FLAGS] &= <uint8_t> ~TCP_URG
    store_be16(header + TCP_URGENT, urgent - min(urgent, at))


cdef inline void _shorten(l45_packet *packet, uint32_t count) noexcept nogil:
    packet.tail = payload(packet) + count
    _number(packet, 0, False)
    if packet.flags & L45_SUMMED:
        packet.payload_sum = sum_bytes(payload(packet), count)
