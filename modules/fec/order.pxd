"""Ingress datagrams one after the other as they were sent, where `reorder_ms` asks for it."""

from libc.stdint cimport uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_verdict
from layer45.modules.fec.wire cimport fec_id

# Makes a numbering's first block the next one.
cdef void order_begin(l45_context *context, uint32_t sbn) noexcept nogil
# What becomes of a datagram that is ready to go: REWRITTEN, or HOLD, and it waits for its turn or has gone. id.k: the
# size of its block, as far as it is known: planned, or actual.
cdef l45_verdict order_pass(l45_context *context, l45_packet *packet, fec_id id, bint owned) noexcept nogil
# A block's size has become known: those that waited for more of it go.
cdef void order_release(l45_context *context) noexcept nogil
# Lets those go that have waited for too long, and tells when to call again.
cdef uint64_t order_due(l45_context *context) noexcept nogil
# Lets all go.
cdef void order_end(l45_context *context) noexcept nogil
