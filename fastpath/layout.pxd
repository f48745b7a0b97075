"""Where a stream's bytes are on the wire: the two maps that an insertion makes, from one pure function.

W(o) = o + inserted(o) is where the run in front of stream byte o begins, so byte o itself is at W(o + 1) - 1, and the
stream's bytes [a, b) with the runs in front of each are [W(a), W(b)) on the wire. The way back is one map for first
bytes, ends and acknowledgements alike: the largest o with W(o) <= w. It is the first byte at or behind wire offset w,
and the number of bytes that are whole in front of it. Offsets below 0 (what a SYN carried, keep-alives before any data)
stay.
"""

from libc.stdint cimport int64_t, uint64_t

# A layout, with two offsets known to belong together: where searches begin.
cdef struct l45_layout:
    uint64_t (*inserted)(const void *, uint64_t) noexcept nogil  # NULL: nothing is inserted
    const void *instance
    int64_t near_stream
    int64_t near_wire

cdef int64_t layout_back(const l45_layout *layout, int64_t wire) noexcept nogil
cdef int64_t layout_run_behind(const l45_layout *layout, int64_t offset, int64_t end, int64_t guess) noexcept nogil
cdef int64_t layout_run_before(const l45_layout *layout, int64_t offset, int64_t end, int64_t guess) noexcept nogil


cdef inline int64_t layout_wire(const l45_layout *layout, int64_t offset) noexcept nogil:
    """W."""
    if layout.inserted == NULL or offset <= 0:
        return offset
    return offset + <int64_t> layout.inserted(layout.instance, <uint64_t> offset)
