"""See template.pxd."""

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memcmp, memcpy, memset

from layer45.fastpath.abi cimport L45_EDITED, L45_EGRESS, L45_SUMMED, l45_flow_key, l45_packet
from layer45.fastpath.checksum cimport sum_bytes
from layer45.fastpath.packet cimport PROTOCOL_UDP, store_be16
from layer45.fastpath.pool cimport l45_carrier

cdef enum:
    HOP_LIMIT = 64          # RFC 1700's default, for flows that have sent nothing
    UDP_HEADER_BYTES = 8

cdef uint8_t MAPPED[12]     # what an IPv4 address in a flow key begins with


cdef void template_keep(l45_template *template, const l45_carrier *carrier) noexcept nogil:
    cdef const l45_packet *packet = &carrier.packet
    if packet.protocol != PROTOCOL_UDP or packet.payload_offset > TEMPLATE_BYTES:
        return
    template.mtu = carrier.mtu
    template.ifindex = carrier.ifindex
    template.l4_offset = packet.l4_offset
    template.header_bytes = packet.payload_offset
    memcpy(template.headers, packet.data, packet.payload_offset)
    template.note_bytes = carrier.note_bytes
    if carrier.note_bytes:
        memcpy(template.note, carrier.note, carrier.note_bytes)


cdef void template_apply(l45_template *template, const l45_flow_key *key, l45_carrier *carrier) noexcept nogil:
    cdef l45_packet *packet = &carrier.packet
    if template.header_bytes == 0:
        _from_key(template, key)
    memset(carrier, 0, sizeof(l45_carrier))
    carrier.mtu = template.mtu
    carrier.ifindex = template.ifindex
    carrier.note_bytes = template.note_bytes
    memcpy(carrier.note, template.note, template.note_bytes)
    packet.data = packet.head = template.headers
    packet.tail = packet.end = template.headers + template.header_bytes
    packet.wire_bytes = template.header_bytes
    packet.l4_offset = template.l4_offset
    packet.payload_offset = template.header_bytes
    packet.flags = L45_EDITED | L45_SUMMED
    packet.ip_version = template.headers[0] >> 4
    packet.protocol = PROTOCOL_UDP
    packet.direction = L45_EGRESS
    packet.class_id = key.class_id


cdef void _from_key(l45_template *template, const l45_flow_key *key) noexcept nogil:
    cdef bint ipv4 = memcmp(key.local, MAPPED, 12) == 0 and memcmp(key.remote, MAPPED, 12) == 0
    cdef uint8_t *udp
    memset(template.headers, 0, TEMPLATE_BYTES)
    template.l4_offset = 20 if ipv4 else 40
    template.header_bytes = template.l4_offset + UDP_HEADER_BYTES
    if ipv4:
        _ipv4_header(template.headers, key)
    else:
        _ipv6_header(template.headers, key)
    udp = template.headers + template.l4_offset
    memcpy(udp, &key.local_port_be, 2)
    memcpy(udp + 2, &key.remote_port_be, 2)
    store_be16(udp + 4, UDP_HEADER_BYTES)


cdef void _ipv4_header(uint8_t *header, const l45_flow_key *key) noexcept nogil:
    cdef uint16_t field
    header[0] = 0x45
    store_be16(header + 2, 20 + UDP_HEADER_BYTES)
    store_be16(header + 4, 1)
    header[8] = HOP_LIMIT
    header[9] = PROTOCOL_UDP
    memcpy(header + 12, key.local + 12, 4)
    memcpy(header + 16, key.remote + 12, 4)
    field = <uint16_t> (sum_bytes(header, 20) ^ 0xFFFF)
    memcpy(header + 10, &field, 2)


cdef void _ipv6_header(uint8_t *header, const l45_flow_key *key) noexcept nogil:
    header[0] = 0x60
    store_be16(header + 4, UDP_HEADER_BYTES)
    header[6] = PROTOCOL_UDP
    header[7] = HOP_LIMIT
    memcpy(header + 8, key.local, 16)
    memcpy(header + 24, key.remote, 16)


MAPPED[10] = MAPPED[11] = 0xFF
