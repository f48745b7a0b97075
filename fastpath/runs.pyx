"""See runs.pxd. A byte moves once at most, and is read for the checksum only where its parity changes."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memmove

from layer45.fastpath.abi cimport L45_DROP, L45_SUMMED, l45_context, l45_packet, l45_stream
from layer45.fastpath.checksum cimport sum_add, sum_at, sum_bytes, sum_subtract
from layer45.fastpath.layout cimport l45_layout, layout_run_before, layout_run_behind, layout_wire
from layer45.fastpath.packet cimport payload, payload_bytes


cdef int runs_insert(l45_context *context, const l45_stream *stream, const l45_layout *layout, int64_t offset,
                     l45_packet *packet) noexcept nogil:
    """The payload is stream bytes from offset on. 0, or -1 with nothing changed: no room behind it.

    From the last run to the first: what stands behind a run moves to its place, then the run is written.
    """
    cdef int64_t end = offset + payload_bytes(packet)
    cdef int64_t begin_wire = layout_wire(layout, offset)
    cdef int64_t growth = layout_wire(layout, end) - begin_wire - (end - offset)
    cdef int64_t run, guess = 1
    cdef uint8_t *start = payload(packet)
    if growth == 0:
        return 0
    if growth > packet.end - packet.tail:
        return -1
    packet.tail += growth
    while True:
        run = layout_run_before(layout, max(offset, <int64_t> 0), end, guess)
        if run < 0:
            return 0
        guess = end - run
        _move(packet, start, run - offset, layout_wire(layout, run + 1) - 1 - begin_wire, end - run)
        _write_run(context, stream, layout, run, begin_wire, packet)
        end = run


cdef inline void _write_run(l45_context *context, const l45_stream *stream, const l45_layout *layout, int64_t run,
                            int64_t begin_wire, l45_packet *packet) noexcept nogil:
    cdef int64_t wire = layout_wire(layout, run)
    cdef uint32_t count = <uint32_t> (layout_wire(layout, run + 1) - 1 - wire)
    cdef uint8_t *at = payload(packet) + (wire - begin_wire)
    stream.fill(context, <uint64_t> run, 0, at, count)
    if packet.flags & L45_SUMMED:
        packet.payload_sum = sum_add(packet.payload_sum, sum_at(sum_bytes(at, count), <size_t> (wire - begin_wire)))


cdef int runs_remove(l45_context *context, const l45_stream *stream, const l45_layout *layout, int64_t wire,
                     int64_t offset, l45_packet *packet) noexcept nogil:
    """The payload is wire bytes from `wire` on, the first stream byte among them is `offset`. 0, or -1: the module says
    to drop the segment."""
    cdef int64_t end_wire = wire + payload_bytes(packet)
    cdef int64_t end = offset + <int64_t> payload_bytes(packet)  # no stream byte is behind that
    cdef int64_t at = wire, place, next_run, guess = 1
    cdef uint8_t *start = payload(packet)
    cdef int64_t into = 0
    if layout.inserted == NULL or end_wire <= 0:
        return 0
    if wire < 0:  # carried by the SYN
        into = -wire
        at = 0
        offset = 0
    while at < end_wire:
        place = layout_wire(layout, offset + 1) - 1
        if place > at and _take_run(context, stream, layout, offset, at, min(place, end_wire), wire, packet) != 0:
            return -1
        at = place
        if at >= end_wire:
            break
        next_run = layout_run_behind(layout, offset, end, guess)
        guess = next_run - offset
        place = min(layout_wire(layout, next_run), end_wire)
        _move(packet, start, at - wire, into, place - at)
        into += place - at
        at = place
        offset = next_run
    packet.tail = start + into
    return 0


cdef inline int _take_run(l45_context *context, const l45_stream *stream, const l45_layout *layout, int64_t run,
                          int64_t at, int64_t until, int64_t wire, l45_packet *packet) noexcept nogil:
    """Wire bytes [at, until) are the run in front of stream byte `run`, or a part of it."""
    cdef uint8_t *bytes = payload(packet) + (at - wire)
    cdef uint32_t count = <uint32_t> (until - at)
    cdef uint32_t skip = <uint32_t> (at - layout_wire(layout, run))
    if stream.check != NULL and stream.check(context, <uint64_t> run, skip, bytes, count) == L45_DROP:
        return -1
    if packet.flags & L45_SUMMED:
        packet.payload_sum = sum_subtract(
            packet.payload_sum, sum_at(sum_bytes(bytes, count), <size_t> (at - wire)))
    return 0


cdef inline void _move(l45_packet *packet, uint8_t *start, int64_t source, int64_t into, int64_t count) noexcept nogil:
    """Payload bytes from one place to another. An odd way swaps their share of the sum."""
    cdef uint32_t total
    if source == into or count == 0:
        return
    if packet.flags & L45_SUMMED and (source ^ into) & 1:
        total = sum_bytes(start + source, <size_t> count)
        packet.payload_sum = sum_add(
            sum_subtract(packet.payload_sum, sum_at(total, <size_t> source)), sum_at(total, <size_t> into))
    memmove(start + into, start + source, <size_t> count)
