"""Puts a stream module's bytes into a segment's payload, and takes them out of one."""

from libc.stdint cimport int64_t

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_stream
from layer45.fastpath.layout cimport l45_layout

cdef int runs_insert(l45_context *context, const l45_stream *stream, const l45_layout *layout, int64_t offset,
                     l45_packet *packet) noexcept nogil
cdef int runs_remove(l45_context *context, const l45_stream *stream, const l45_layout *layout, int64_t wire,
                     int64_t offset, l45_packet *packet) noexcept nogil
