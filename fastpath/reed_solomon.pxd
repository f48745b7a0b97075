"""Systematic Reed-Solomon over GF(2^8), RFC 6865 with the coefficients of RFC 5510.

Polynomial 0x11d, α = 2. A block is a polynomial of degree < k; symbol j is its value at α^j: 0..k-1 are the source
symbols, k and up the repair symbols. So every symbol is a Lagrange sum of any k others, and encoding and decoding are
one thing: row[w][i] = ∏ over known t ≠ i of (α^w + α^t) / (α^i + α^t).

A row does not depend on m: a code opened for the most repair symbols gives fewer ones too. It does depend on k: what
was added up for k says nothing of a block that is closed early; rs_encode_short makes its repair symbols from the
source symbols themselves, and needs no code.

Buffers are the caller's. A symbol that is read may be shorter than the block's symbols, which have `bytes` bytes: it
has its own length, at most that (not checked here), in a buffer of rs_room_bytes(length) that is zero from its end to
there, and counts as zero from there on. Of a symbol of no bytes nothing is read: it may be NULL. Outputs have
rs_room_bytes(bytes) and may not overlap inputs; what is made is as long as the block's symbols.
The hot functions keep their scratch (28 kB at most) on the stack, and allocate nothing.
Threads: a code is read-only once it is open; all functions may run in any number of threads.
"""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    RS_MOST_SOURCES = 200
    RS_MOST_REPAIRS = 100
    RS_MOST_SYMBOLS = 255
    RS_ROUND_BYTES = 64

cdef struct rs_code:
    uint32_t k
    uint32_t m
    uint32_t users
    rs_code *next
    uint8_t *rows           # m × k coefficients
    uint8_t *tables         # the same as ISA-L wants them; opaque


cdef inline uint32_t rs_room_bytes(uint32_t bytes) noexcept nogil:
    return (bytes + RS_ROUND_BYTES - 1) & ~<uint32_t> (RS_ROUND_BYTES - 1)


cdef inline bint rs_valid(uint32_t k, uint32_t m) noexcept nogil:
    """Whether there is a code of k source and m repair symbols."""
    return 1 <= k <= RS_MOST_SOURCES and m <= RS_MOST_REPAIRS and k + m <= RS_MOST_SYMBOLS


# Cold. The code of (k, m), shared by all that open it; NULL: out of range, or no memory. Each open needs one end.
cdef const rs_code *rs_code_open(uint32_t k, uint32_t m) noexcept nogil
cdef void rs_code_end(const rs_code *code) noexcept nogil

# The first `count` (at most m) repair symbols of a whole block. source_bytes: the length of each of the k sources.
cdef void rs_encode(const rs_code *code, uint8_t **sources, const uint32_t *source_bytes, uint8_t **repairs,
                    uint32_t count, uint32_t bytes) noexcept nogil

# The same, one source symbol at a time and in any order: adds symbol `index` to the first `count` repair symbols, which
# are zero before the first one. `bytes` is this symbol's own length. Costs the same in all, a symbol at a
# time while it is in the cache; but is of no use for a block that ends short.
cdef void rs_add(const rs_code *code, uint32_t index, const uint8_t *source, uint8_t **repairs, uint32_t count,
                 uint32_t bytes) noexcept nogil

# As rs_encode, for any k and without a code: its coefficients are made on the way. -1: not rs_valid.
cdef int rs_encode_short(uint32_t k, uint8_t **sources, const uint32_t *source_bytes, uint8_t **repairs,
                         uint32_t count, uint32_t bytes) noexcept nogil

# The source symbols that k received ones (positions: their numbers, in any order) leave open: their numbers to
# missing, ascending, room for RS_MOST_REPAIRS. How many; -1: out of range, or one twice.
cdef int rs_missing(uint32_t k, const uint8_t *positions, uint8_t *missing) noexcept nogil

# Makes these from the k received ones, to recovered, in the same order. symbol_bytes: the length of each received one,
# in the order of positions; a repair symbol's is `bytes`. How many; -1 as rs_missing, nothing written.
cdef int rs_decode(uint32_t k, const uint8_t *positions, uint8_t **symbols, const uint32_t *symbol_bytes,
                   uint8_t **recovered, uint32_t bytes) noexcept nogil

# Coefficients of repair symbol `position` of k, for tests and tools: k bytes to row.
cdef void rs_row(uint32_t k, uint32_t position, uint8_t *row) noexcept nogil

# Which arithmetic runs: 1 ISA-L, 0 our own tables. Returns what runs now: without the library always 0.
cdef bint rs_use_isal(bint wanted) noexcept nogil
cdef uint32_t rs_open_codes() noexcept nogil
