"""The keystream of README.md: a pure function of a 64-bit base and the byte's position, eight bytes at a time.

Machines with AVX2 do four blocks at once, and find out by themselves.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from * nogil:
    """
    #include <endian.h>
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    #define STEP 0x9E3779B97F4A7C15ULL  /* 2^64 divided by the golden ratio */
    #define HALVES_FIRST 0x85EBCA6BU    /* the multipliers of murmur3's finaliser */
    #define HALVES_LAST 0xC2B2AE35U

    static inline uint64_t multiply_halves(uint64_t value, uint32_t by) {
        uint32_t low = (uint32_t) value * by, high = (uint32_t) (value >> 32) * by;
        return (uint64_t) high << 32 | low;
    }

    static inline uint64_t stream_word(uint64_t value) {
        value = multiply_halves(value ^ value >> 32, HALVES_FIRST);
        value ^= value >> 15;
        value = multiply_halves(value ^ value << 32, HALVES_LAST);
        return value ^ value >> 29;
    }

    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>
    __attribute__((target("avx2")))
    static size_t stream_fours(uint8_t *at, size_t blocks, uint64_t value) {
        const __m256i step = _mm256_set1_epi64x((int64_t) (4 * STEP));
        const __m256i first = _mm256_set1_epi32((int32_t) HALVES_FIRST);
        const __m256i last = _mm256_set1_epi32((int32_t) HALVES_LAST);
        __m256i values = _mm256_set_epi64x((int64_t) (value + 3 * STEP), (int64_t) (value + 2 * STEP),
                                           (int64_t) (value + STEP), (int64_t) value);
        size_t block;
        for (block = 0; block + 4 <= blocks; block += 4) {
            __m256i *bytes = (__m256i *) (at + 8 * block);
            __m256i word = _mm256_xor_si256(values, _mm256_srli_epi64(values, 32));
            word = _mm256_mullo_epi32(word, first);
            word = _mm256_xor_si256(word, _mm256_srli_epi64(word, 15));
            word = _mm256_xor_si256(word, _mm256_slli_epi64(word, 32));
            word = _mm256_mullo_epi32(word, last);
            word = _mm256_xor_si256(word, _mm256_srli_epi64(word, 29));
            _mm256_storeu_si256(bytes, _mm256_xor_si256(word, _mm256_loadu_si256(bytes)));
            values = _mm256_add_epi64(values, step);
        }
        return block;
    }
    #define CAN_FOURS __builtin_cpu_supports("avx2")
    #else
    #define CAN_FOURS 0
    #define stream_fours(at, blocks, value) 0
    #endif

    /* XORs whole blocks; value is that of the first. */
    static inline void stream_blocks(uint8_t *at, size_t blocks, uint64_t value) {
        size_t block = blocks >= 8 && CAN_FOURS ? stream_fours(at, blocks, value) : 0;
        for (; block < blocks; block++) {
            uint64_t word;
            memcpy(&word, at + 8 * block, 8);
            word ^= htole64(stream_word(value + block * STEP));
            memcpy(at + 8 * block, &word, 8);
        }
    }
    """
    uint64_t STEP
    uint64_t stream_word(uint64_t value)
    void stream_blocks(uint8_t *at, size_t blocks, uint64_t value)

cdef extern from "<endian.h>" nogil:
    uint64_t htole64(uint64_t)
    uint64_t le64toh(uint64_t)


cdef inline uint64_t load_word(const uint8_t *at, uint32_t count) noexcept nogil:
    """Up to 8 bytes as a little-endian number, zeros above."""
    cdef uint64_t word = 0
    memcpy(&word, at, count)
    return le64toh(word)


cdef inline void apply_word(uint8_t *at, uint64_t word, uint32_t count) noexcept nogil:
    """XORs the first count bytes of a word, little endian."""
    word = htole64(load_word(at, count) ^ word)
    memcpy(at, &word, count)


cdef inline void apply_stream(const void *base, uint64_t position, uint8_t *at, uint32_t count) noexcept nogil:
    """XORs keystream bytes [position, position + count). Block i, 8 bytes: stream_word(base + i * STEP).

    An l45_change: base points to the 64 bits.
    """
    cdef uint64_t value = (<const uint64_t *> base)[0] + (position >> 3) * STEP
    cdef uint32_t skip = position & 7
    cdef uint32_t part = min(8 - skip, count)
    if skip:
        apply_word(at, stream_word(value) >> 8 * skip, part)
        at += part
        count -= part
        value += STEP
    stream_blocks(at, count >> 3, value)
    if count & 7:
        apply_word(at + (count & ~<uint32_t> 7), stream_word(value + (count >> 3) * STEP), count & 7)
