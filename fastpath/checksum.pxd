"""The Internet checksum (RFC 1071) and its incremental update (RFC 1624), as 16-bit one's complement sums.

Sums are taken over words as the machine loads them and stored the same way, so no byte order is ever converted:
RFC 1071 section 2(B).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef inline uint32_t fold(uint64_t total) noexcept nogil:
    """A sum of words as 16 bits; 0 only for the sum of nothing but zeros."""
    total = (total >> 32) + <uint32_t> total
    total = (total >> 32) + <uint32_t> total
    total = (total >> 16) + (total & 0xFFFF)
    total = (total >> 16) + (total & 0xFFFF)
    return <uint32_t> ((total >> 16) + (total & 0xFFFF))


cdef inline uint32_t sum_bytes(const uint8_t *data, size_t count) noexcept nogil:
    """The folded sum of count bytes; an odd last byte is padded with zero."""
    cdef uint64_t total = 0
    cdef uint32_t word
    cdef uint16_t half = 0
    cdef size_t at, whole = count & ~<size_t> 3
    for at in range(0, whole, 4):
        memcpy(&word, data + at, 4)
        total += word
    if count & 2:
        memcpy(&half, data + whole, 2)
        total += half
        whole += 2
    if count & 1:
        half = 0
        memcpy(&half, data + whole, 1)
        total += half
    return fold(total)


cdef inline uint32_t sum_at(uint32_t total, size_t offset) noexcept nogil:
    """What a sum counts for when its bytes begin at offset: swapped at an odd one."""
    return ((total & 0xFF) << 8 | total >> 8) if offset & 1 else total


cdef inline uint32_t sum_add(uint32_t left, uint32_t right) noexcept nogil:
    return fold(<uint64_t> left + right)


cdef inline uint32_t sum_subtract(uint32_t left, uint32_t right) noexcept nogil:
    return fold(<uint64_t> left + (right ^ 0xFFFF))


cdef inline void replace_summed(uint8_t *checksum, uint8_t *at, const uint8_t *bytes, size_t count) noexcept nogil:
    """Writes over bytes at an even place, and updates the checksum that covers them (RFC 1624, equation 3)."""
    cdef uint16_t field
    cdef uint32_t total
    memcpy(&field, checksum, 2)
    total = sum_subtract(field ^ 0xFFFF, sum_bytes(at, count))
    memcpy(at, bytes, count)
    field = <uint16_t> (sum_add(total, sum_bytes(bytes, count)) ^ 0xFFFF)
    memcpy(checksum, &field, 2)
