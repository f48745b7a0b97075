"""What becomes of an ingress symbol whose block is not over."""

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_verdict
from layer45.modules.fec.wire cimport fec_id

# Copies a source datagram's symbol; the packet still has its id, and goes on in any case.
cdef void block_source(l45_context *context, const l45_packet *packet, fec_id id) noexcept nogil
# Takes a repair. HOLD: it waits in its block. REWRITTEN: it has become a lost datagram. owned: it is held already.
cdef l45_verdict block_repair(l45_context *context, l45_packet *packet, fec_id id, bint owned) noexcept nogil
