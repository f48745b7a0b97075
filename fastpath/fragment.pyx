"""See fragment.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from layer45.fastpath.checksum cimport sum_bytes
from layer45.fastpath.packet cimport load_be16, store_be16, store_be32

cdef enum:
    HEADER_LIMIT = 512
    NEXT_FRAGMENT = 44
    MORE_FRAGMENTS = 0x2000
    DONT_FRAGMENT = 0x4000
    FRAGMENT_HEADER_BYTES = 8


cdef int fragment(const uint8_t *data, uint32_t count, uint32_t l4_offset, uint32_t mtu, uint32_t identification,
                  fragment_sink sink, void *self) noexcept nogil:
    cdef uint8_t headers[HEADER_LIMIT]
    cdef bint ipv6 = data[0] >> 4 == 6
    cdef uint32_t header_bytes = l4_offset + (FRAGMENT_HEADER_BYTES if ipv6 else 0)
    cdef uint32_t room, body_bytes, offset = 0, total = count - l4_offset
    if header_bytes > HEADER_LIMIT or mtu < header_bytes + 8:
        return -1
    if not ipv6 and load_be16(data + 6) & DONT_FRAGMENT:
        return -1
    room = (mtu - header_bytes) & ~<uint32_t> 7
    memcpy(headers, data, l4_offset)
    while offset < total:
        body_bytes = min(room, total - offset)
        if ipv6:
            _ipv6_headers(headers, l4_offset, body_bytes, offset, offset + body_bytes < total, identification)
        else:
            _ipv4_header(headers, l4_offset, body_bytes, offset, offset + body_bytes < total, identification)
        sink(self, headers, header_bytes, data + l4_offset + offset, body_bytes)
        offset += body_bytes
        if ipv6 and offset < total:
            memcpy(headers, data, l4_offset)
    return 0


cdef void _ipv4_header(uint8_t *header, uint32_t header_bytes, uint32_t body_bytes, uint32_t offset, bint more,
                       uint32_t identification) noexcept nogil:
    cdef uint16_t field
    store_be16(header + 2, header_bytes + body_bytes)
    if load_be16(header + 4) == 0:
        store_be16(header + 4, identification if identification & 0xFFFF else 1)
    store_be16(header + 6, (MORE_FRAGMENTS if more else 0) | offset >> 3)
    store_be16(header + 10, 0)
    field = <uint16_t> (sum_bytes(header, header_bytes) ^ 0xFFFF)
    memcpy(header + 10, &field, 2)


cdef void _ipv6_headers(uint8_t *headers, uint32_t l4_offset, uint32_t body_bytes, uint32_t offset, bint more,
                        uint32_t identification) noexcept nogil:
    """The fragment header goes in front of the upper layer; every header before it stays in each fragment."""
    cdef uint8_t *link = headers + 6
    cdef uint8_t *added = headers + l4_offset
    cdef uint32_t at = 40
    while at < l4_offset:
        link = headers + at
        at += (headers[at + 1] + 1) * 8
    added[0] = link[0]
    added[1] = 0
    link[0] = NEXT_FRAGMENT
    store_be16(added + 2, offset | (1 if more else 0))
    store_be32(added + 4, identification)
    store_be16(headers + 4, l4_offset - 40 + FRAGMENT_HEADER_BYTES + body_bytes)


cdef void _collect(void *self, const uint8_t *headers, uint32_t header_bytes, const uint8_t *body,
                   uint32_t body_bytes) noexcept nogil:
    with gil:
        (<list> self).append(headers[:header_bytes] + body[:body_bytes])


def fragments(bytes packet, uint32_t l4_offset, uint32_t mtu, uint32_t identification) -> list[bytes]:
    """The fragments of an IP packet, for tests. ValueError when it can't be cut."""
    cdef list found = []
    if fragment(packet, <uint32_t> len(packet), l4_offset, mtu, identification, _collect, <void *> found) != 0:
        raise ValueError("the packet can't be cut")
    return found
