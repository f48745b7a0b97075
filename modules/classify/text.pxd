"""Protocols whose messages begin with a line of text."""

from libc.stdint cimport uint8_t, uint32_t

# SIP or RTSP, of either transport.
cdef uint32_t protocol_of_call(const uint8_t *at, uint32_t count) noexcept nogil
# Of a TCP segment. opens: nothing with payload was seen of the flow before, in either direction.
cdef uint32_t protocol_of_text(const uint8_t *at, uint32_t count, bint opens) noexcept nogil
