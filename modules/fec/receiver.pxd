"""Ingress: which numbering a datagram belongs to, and what becomes of it."""

from libc.stdint cimport uint64_t

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_verdict

cdef l45_verdict receive(l45_context *context, l45_packet *packet) noexcept nogil
# Decides what is due, and tells when to call again.
cdef uint64_t receive_due(l45_context *context) noexcept nogil
# Lets everything go that is held, and gives all memory back.
cdef void receive_end(l45_context *context) noexcept nogil
