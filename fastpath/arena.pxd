"""Memory that modules borrow for the time of a block: one bounded piece a worker, nothing allocated after its start.

A buddy allocator (Knuth, The Art of Computer Programming, volume 1, 2.5): cells of 256 bytes to 128 kB, each a power of
two and at a multiple of its own size. A cell that comes back joins its other half at once, and so on upwards: what is
free is always in the fewest cells, so no pattern of requests cuts the arena up for good. Taking and giving cost at most
nine splits or joins. A request is rounded up to its cell: up to half of it may be unused.

Borrowed memory is NOT zeroed, has no header, and is the borrower's until it is given back; at the arena's end all of it
is gone. Free cells hold the allocator's own links: nobody may write to one that was given back.
One worker thread owns an arena and all that it lends. It has pointers to itself and must not be copied or moved.
"""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    UNIT_SHIFT = 8
    UNIT_BYTES = 1 << UNIT_SHIFT    # the smallest cell, and the alignment of all
    ORDERS = 10                     # a cell of order n has UNIT_BYTES << n bytes
    MOST_BYTES = UNIT_BYTES << (ORDERS - 1)     # the largest, and so the longest request
    LEAST_ARENA_BYTES = 2 * MOST_BYTES

cdef struct l45_free_cell:          # its first bytes
    l45_free_cell *next
    l45_free_cell *previous

cdef struct l45_arena:
    size_t live             # cells out
    size_t used_bytes       # in them, what rounding up adds included
    size_t misuse           # how often something was given that is no cell that is out
    size_t bytes            # 0: not started, or ended; nothing can be taken
    size_t touched_bytes    # from the start; no cell was ever taken behind them
    uint32_t stocked        # bit n: there are free cells of order n
    uint8_t *memory
    uint8_t *marks          # of each unit, what begins there: 0: no cell, or an untouched one
    l45_free_cell heads[ORDERS]     # of circular lists, by order

# Cold. Reserves address space for `bytes`, rounded up to a power of two from LEAST_ARENA_BYTES on; memory is touched
# only as it is used. 0, or -1: there is none, and the arena is as one that has ended.
cdef int arena_start(l45_arena *arena, size_t bytes) noexcept nogil
cdef void arena_end(l45_arena *arena) noexcept nogil

# At least `bytes`, aligned to UNIT_BYTES, with what was in them before; for 0 the smallest cell. NULL: more than
# MOST_BYTES, or there is no free cell of that size.
cdef void *arena_take(l45_arena *arena, size_t bytes) noexcept nogil

# Gives a cell back. NULL is none; what is not the start of a cell that is out is left alone and counted as misuse.
# (A cell given twice is not seen if it was taken again in between.)
cdef void arena_give(l45_arena *arena, void *memory) noexcept nogil
