"""See layout.pxd."""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    INTERPOLATIONS = 8  # then halving, which ends within 64 steps whatever the function is


cdef inline int64_t _stretch(const l45_layout *layout, int64_t wire_bytes) noexcept nogil:
    """About how many stream bytes so many wire bytes are, by what is so of the layout as a whole; at least 1."""
    if layout.near_wire <= 0:
        return max(wire_bytes >> 1, 1)
    return max(<int64_t> (<double> wire_bytes * layout.near_stream / layout.near_wire), 1)


cdef int64_t layout_back(const l45_layout *layout, int64_t wire) noexcept nogil:
    """The largest offset with W(offset) <= wire."""
    cdef int64_t low = 0, high = wire + 1, at, place
    cdef int steps = 0
    if layout.inserted == NULL or wire <= 0:
        return wire
    at = layout.near_stream
    while high - low > 1:
        if not low < at < high:
            at = low + ((high - low) >> 1)
        place = layout_wire(layout, at)
        if place == wire:
            return at
        if place < wire:
            low = at
            at += _stretch(layout, wire - place)
        else:
            high = at
            at -= _stretch(layout, place - wire)
        steps += 1
        if steps > INTERPOLATIONS:
            at = low + ((high - low) >> 1)
    return low


cdef int64_t layout_run_behind(const l45_layout *layout, int64_t offset, int64_t end, int64_t guess) noexcept nogil:
    """The first byte behind `offset` that has a run in front of it, or `end` where there is none before.

    guess: how far that may be; a right one costs least.
    """
    cdef uint64_t before
    cdef int64_t low = offset, high = end, at = offset + guess
    cdef int steps = 0
    if layout.inserted == NULL or end <= offset + 1:
        return end
    before = layout.inserted(layout.instance, <uint64_t> (offset + 1))
    if layout.inserted(layout.instance, <uint64_t> end) == before:
        return end
    while high - low > 1:
        if steps > 1 or not low < at < high:
            at = low + ((high - low) >> 1)
        if layout.inserted(layout.instance, <uint64_t> (at + 1)) > before:
            high = at
            at -= 1
        else:
            low = at
            at += 1
        steps += 1
    return high


cdef int64_t layout_run_before(const l45_layout *layout, int64_t offset, int64_t end, int64_t guess) noexcept nogil:
    """The last byte of [offset, end) that has a run in front of it, or -1. guess: how far in front of end it may be."""
    cdef uint64_t before
    cdef int64_t low = offset, high = end, at = end - guess
    cdef int steps = 0
    if layout.inserted == NULL or end <= offset:
        return -1
    before = layout.inserted(layout.instance, <uint64_t> end)
    if layout.inserted(layout.instance, <uint64_t> offset) == before:
        return -1
    while high - low > 1:
        if steps > 1 or not low < at < high:
            at = low + ((high - low) >> 1)
        if layout.inserted(layout.instance, <uint64_t> at) < before:
            low = at
            at += 1
        else:
            high = at
            at -= 1
        steps += 1
    return low
