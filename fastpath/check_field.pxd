"""FNV-1a, 32 bit: the check field of marks that modules put on the wire.

It makes chance matches rare. It is no authentication: anyone can compute it.
"""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    CHECK_BEGIN = 0x811C9DC5


cdef inline uint32_t check_bytes(uint32_t check, const uint8_t *bytes, size_t count) noexcept nogil:
    """Goes on from check (at first CHECK_BEGIN) over count bytes."""
    cdef size_t at
    for at in range(count):
        check = (check ^ bytes[at]) * <uint32_t> 0x01000193
    return check
