"""Which protocol a TCP segment's payload begins with."""

from libc.stdint cimport uint8_t, uint32_t

# opens: nothing with payload was seen of the flow before, in either direction.
cdef uint32_t protocol_of_segment(const uint8_t *at, uint32_t count, bint opens) noexcept nogil
