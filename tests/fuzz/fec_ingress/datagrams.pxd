"""IPv4 UDP datagrams in memory of exactly their size and room: made for a worker, and judged when they come out."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport L45_INGRESS, l45_packet
from layer45.fastpath.checksum cimport sum_add, sum_bytes
from layer45.fastpath.packet cimport load_be16, store_be16
from layer45.fastpath.pool cimport HEAD_ROOM_BYTES, ORIGIN_QUEUED, TAIL_ROOM_BYTES, l45_carrier

cdef enum:
    HEADERS_BYTES = 28
    MOST_PAYLOAD_BYTES = 65507
    FIRST_PORT = 4000       # of the sender's side, one a flow
    PORT = 5000             # of the receiver's
    REPAIR_PORT = 5001      # where repairs come to that travel apart
    SUM_AT = 26


cdef inline bint udp_sum_holds(const uint8_t *packet, uint32_t bytes) noexcept nogil:
    cdef uint8_t pseudo[4]
    cdef uint32_t total
    if packet[SUM_AT] == 0 and packet[SUM_AT + 1] == 0:
        return True
    pseudo[0] = 0
    pseudo[1] = packet[9]
    store_be16(pseudo + 2, bytes - 20)
    total = sum_add(sum_bytes(packet + 12, 8), sum_bytes(pseudo, 4))
    return sum_add(total, sum_bytes(packet + 20, bytes - 20)) == 0xFFFF


cdef inline void set_udp_sum(uint8_t *packet, uint32_t bytes) noexcept nogil:
    cdef uint8_t pseudo[4]
    cdef uint32_t total
    cdef uint16_t field
    memset(packet + SUM_AT, 0, 2)
    pseudo[0] = 0
    pseudo[1] = packet[9]
    store_be16(pseudo + 2, bytes - 20)
    total = sum_add(sum_bytes(packet + 12, 8), sum_bytes(pseudo, 4))
    field = <uint16_t> (sum_add(total, sum_bytes(packet + 20, bytes - 20)) ^ 0xFFFF)
    if field == 0:
        field = 0xFFFF
    memcpy(packet + SUM_AT, &field, 2)


cdef inline void write_headers(uint8_t *packet, uint32_t payload_bytes, uint32_t flow, bint apart) noexcept nogil:
    """All but the UDP checksum, from 10.77.0.1 to 10.77.0.2."""
    cdef uint16_t field
    memset(packet, 0, HEADERS_BYTES)
    packet[0] = 0x45
    store_be16(packet + 2, HEADERS_BYTES + payload_bytes)
    store_be16(packet + 4, 1)
    packet[8] = 64
    packet[9] = 17
    memcpy(packet + 12, b"\x0a\x4d\x00\x01\x0a\x4d\x00\x02", 8)
    field = <uint16_t> (sum_bytes(packet, 20) ^ 0xFFFF)
    memcpy(packet + 10, &field, 2)
    store_be16(packet + 20, FIRST_PORT + flow)
    store_be16(packet + 22, REPAIR_PORT if apart else PORT)
    store_be16(packet + 24, 8 + payload_bytes)


cdef inline void turn_round(uint8_t *packet) noexcept nogil:
    """Makes it a datagram of the other direction; the sums still hold."""
    cdef uint8_t address[4]
    cdef uint8_t port[2]
    memcpy(address, packet + 12, 4)
    memcpy(packet + 12, packet + 16, 4)
    memcpy(packet + 16, address, 4)
    memcpy(port, packet + 20, 2)
    memcpy(packet + 20, packet + 22, 2)
    memcpy(packet + 22, port, 2)


cdef inline bint carrier_start(l45_carrier *carrier, const uint8_t *payload, uint32_t bytes, uint32_t flow,
                               bint apart, uint8_t direction) noexcept nogil:
    """Between the ports of a flow, or to that of its repairs. It has as much room as the queue gives, and not a byte
    more: a sanitizer sees what is written behind it."""
    cdef size_t room = HEAD_ROOM_BYTES + HEADERS_BYTES + bytes + TAIL_ROOM_BYTES
    cdef uint8_t *slot = <uint8_t *> calloc(1, room)
    memset(carrier, 0, sizeof(l45_carrier))
    if slot == NULL:
        return False
    carrier.packet.head = slot
    carrier.packet.data = slot + HEAD_ROOM_BYTES
    carrier.packet.tail = carrier.packet.data + HEADERS_BYTES + bytes
    carrier.packet.end = slot + room
    write_headers(carrier.packet.data, bytes, flow, apart)
    memcpy(carrier.packet.data + HEADERS_BYTES, payload, bytes)
    set_udp_sum(carrier.packet.data, HEADERS_BYTES + bytes)
    carrier.packet.direction = direction
    carrier.packet.class_id = 1
    carrier.packet.origin = ORIGIN_QUEUED
    return True


cdef inline void carrier_end(l45_carrier *carrier) noexcept nogil:
    free(carrier.packet.head)


cdef inline bint lengths_hold(const l45_packet *packet) noexcept nogil:
    cdef uint32_t bytes = <uint32_t> (packet.tail - packet.data)
    return bytes >= HEADERS_BYTES and load_be16(packet.data + 2) == bytes \
        and load_be16(packet.data + 24) == bytes - 20 and sum_bytes(packet.data, 20) == 0xFFFF


cdef inline bint is_sound(const l45_packet *packet) noexcept nogil:
    return lengths_hold(packet) and udp_sum_holds(packet.data, <uint32_t> (packet.tail - packet.data))
