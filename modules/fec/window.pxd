"""The last WINDOW blocks of a numbering: which symbols were seen, and which blocks are over."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from layer45.modules.fec.state cimport SEEN_WORDS, WINDOW, fec_window
from layer45.modules.fec.wire cimport SBN_MASK, sbn_ahead

cdef enum:
    MOST_AHEAD = 32         # how far one datagram may move the window


cdef inline uint32_t slot_of(uint32_t sbn) noexcept nogil:
    return sbn % WINDOW


cdef inline bint is_near(const fec_window *window, uint32_t sbn) noexcept nogil:
    return -WINDOW < sbn_ahead(sbn, window.newest) <= MOST_AHEAD


cdef inline bint is_past(const fec_window *window, uint32_t sbn) noexcept nogil:
    """Whether the sender has used this number since it began."""
    return (window.newest - sbn & SBN_MASK) <= (window.newest - window.first & SBN_MASK)


cdef inline bint seen(const fec_window *window, uint32_t sbn, uint32_t esi) noexcept nogil:
    return window.seen[slot_of(sbn)][esi // 64] >> (esi % 64) & 1


cdef inline void see(fec_window *window, uint32_t sbn, uint32_t esi) noexcept nogil:
    window.seen[slot_of(sbn)][esi // 64] |= <uint64_t> 1 << (esi % 64)


cdef inline void clear(fec_window *window, uint32_t sbn) noexcept nogil:
    """Makes a block's place that of a new one."""
    memset(window.seen[slot_of(sbn)], 0, SEEN_WORDS * sizeof(uint64_t))
    window.over[slot_of(sbn)] = False
    window.sizes[slot_of(sbn)] = 0


cdef inline void begin_at(fec_window *window, uint32_t sbn, uint32_t first) noexcept nogil:
    """A numbering of which nothing was seen; blocks before its first one may come late, but are not waited for. No
    block may be open."""
    memset(window, 0, sizeof(fec_window))
    memset(window.over, 1, WINDOW)
    window.newest = sbn
    window.first = first
    clear(window, sbn)


cdef inline void begin_behind(fec_window *window, uint32_t sbn, uint32_t first) noexcept nogil:
    """The same, but that block went on before it was heard: what was missed of it is not lost."""
    begin_at(window, sbn, first)
    window.over[slot_of(sbn)] = True
