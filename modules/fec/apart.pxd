"""Repairs that come on a flow of their own: wire = "rfc6865"."""

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_verdict

cdef l45_verdict receive_apart(l45_context *context, l45_packet *packet) noexcept nogil
