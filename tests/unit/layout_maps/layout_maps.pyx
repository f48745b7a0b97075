"""The maps of fastpath/layout, of any Python function of an offset."""

from libc.stdint cimport int64_t, uint64_t

from layer45.fastpath.layout cimport l45_layout, layout_back, layout_run_before, layout_run_behind, layout_wire


cdef uint64_t _call(const void *function, uint64_t offset) noexcept nogil:
    with gil:
        return (<object> function)(offset)


cdef l45_layout _layout(object inserted, int64_t near_stream, int64_t near_wire):
    cdef l45_layout layout
    layout.inserted = _call
    layout.instance = <void *> inserted
    layout.near_stream, layout.near_wire = near_stream, near_wire
    return layout


def maps(inserted, offsets, wires, near=(0, 0)):
    """W of offsets, and the offsets of wire offsets."""
    cdef l45_layout layout = _layout(inserted, near[0], near[1])
    return [layout_wire(&layout, o) for o in offsets], [layout_back(&layout, w) for w in wires]


def runs(inserted, offset, end, guess):
    """layout_run_behind and layout_run_before."""
    cdef l45_layout layout = _layout(inserted, 0, 0)
    return layout_run_behind(&layout, offset, end, guess), layout_run_before(&layout, offset, end, guess)
