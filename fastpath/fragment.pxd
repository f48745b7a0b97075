"""Cuts an IP packet of our own into fragments (RFC 791 section 3.2, RFC 8200 section 4.5).

The kernel does this for packets that it sends itself; a raw socket refuses what is longer than the MTU.
"""

from libc.stdint cimport uint8_t, uint32_t

# Gets each fragment as two pieces, headers and body; both are good only during the call.
ctypedef void (*fragment_sink)(void *self, const uint8_t *headers, uint32_t header_bytes, const uint8_t *body,
                               uint32_t body_bytes) noexcept nogil

# 0, or -1 when the packet can't be cut: headers that leave no room, or an IPv4 packet that must not be cut.
cdef int fragment(const uint8_t *data, uint32_t count, uint32_t l4_offset, uint32_t mtu, uint32_t identification,
                  fragment_sink sink, void *self) noexcept nogil
