"""The repair datagrams of a block: how many, and how they are made."""

from libc.stdint cimport uint32_t

from layer45.fastpath.abi cimport l45_context, l45_packet
from layer45.modules.fec.state cimport fec_instance, fec_out, out_block

# full: how many a full block gets.
cdef void repair(l45_context *context, out_block *block, uint32_t sbn, uint32_t full) noexcept nogil


cdef inline uint32_t *lengths_of(const fec_instance *fec, out_block *block) noexcept nogil:
    return <uint32_t *> (block.symbols + fec.k)


cdef inline void take_turn(fec_out *out, l45_packet *packet) noexcept nogil:
    """Modules behind count repairs too, and no two datagrams have one number."""
    packet.sequence = out.sequence
    out.sequence += 1
