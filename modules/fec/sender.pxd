"""Egress: ids behind datagrams, and repair datagrams behind blocks."""

from libc.stdint cimport uint64_t

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_verdict

cdef l45_verdict send(l45_context *context, l45_packet *packet) noexcept nogil
# Closes what is due, and tells when to call again; L45_NEVER: nothing is open.
cdef uint64_t send_due(l45_context *context) noexcept nogil
# Closes what is open, and gives all memory back.
cdef void send_end(l45_context *context) noexcept nogil
