"""DNS messages: RFC 1035 section 4.1, RFC 6762 section 18."""

from libc.stdint cimport uint8_t, uint32_t

# Whether at least the header and the whole question are there, and are right.
cdef bint is_dns(const uint8_t *at, uint32_t count) noexcept nogil
