"""splitmix64 (Steele, Lea and Flood, OOPSLA 2014): random numbers by their place in a stream. Not for secrets."""

from libc.stdint cimport uint64_t


cdef inline uint64_t mixed(uint64_t value) noexcept nogil:
    """Its finaliser: every bit in changes about half of the bits out."""
    value = (value ^ (value >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9ULL
    value = (value ^ (value >> 27)) * <uint64_t> 0x94D049BB133111EBULL
    return value ^ (value >> 31)


cdef inline uint64_t next_of(uint64_t *stream) noexcept nogil:
    stream[0] += <uint64_t> 0x9E3779B97F4A7C15ULL
    return mixed(stream[0])


cdef inline uint64_t numbered(uint64_t stream, uint64_t number) noexcept nogil:
    """What next_of gives at the number-th call, from 1."""
    return mixed(stream + number * <uint64_t> 0x9E3779B97F4A7C15ULL)
