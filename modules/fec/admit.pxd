"""Datagrams of the numbering in use: the window moves on, a source goes on, a repair waits or becomes a lost one."""

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_verdict
from layer45.modules.fec.wire cimport fec_id

# Its checksum holds. owned: the packet is held already.
cdef l45_verdict admit(l45_context *context, l45_packet *packet, fec_id id, bint owned) noexcept nogil
# One of the numbering before: it goes on, but nothing is recovered any more.
cdef l45_verdict admit_straggler(l45_context *context, l45_packet *packet, fec_id id) noexcept nogil
cdef void end_blocks(l45_context *context) noexcept nogil
