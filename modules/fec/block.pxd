"""Ingress blocks, from their first symbol to their end: all symbols there, some made anew, or given up."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_context, l45_packet
from layer45.fastpath.reed_solomon cimport RS_MOST_REPAIRS
from layer45.modules.fec.state cimport fec_window, in_block
from layer45.modules.fec.wire cimport fec_id

# The open block of an id, or a new one; NULL: no memory for it.
cdef in_block *block_of(l45_context *context, fec_id id) noexcept nogil
# Remembers the actual size of a block, which is known now.
cdef void know_size(fec_window *window, const in_block *block) noexcept nogil
# Gives everything of a block back; what is missing stays lost.
cdef void block_end(l45_context *context, in_block *block) noexcept nogil
# Ends blocks that have waited for too long; when to call again.
cdef uint64_t blocks_due(l45_context *context) noexcept nogil


# Behind an in_block and its `room` symbols lie, in this order: held repairs, lengths of symbols, ESIs of the repairs.

cdef inline uint32_t repair_room(uint32_t room) noexcept nogil:
    return min(room, <uint32_t> RS_MOST_REPAIRS)


cdef inline l45_packet **held_of(in_block *block) noexcept nogil:
    return <l45_packet **> (block.symbols + block.room)


cdef inline uint32_t *lengths_of(in_block *block) noexcept nogil:
    return <uint32_t *> (held_of(block) + repair_room(block.room))


cdef inline uint8_t *esis_of(in_block *block) noexcept nogil:
    return <uint8_t *> (lengths_of(block) + block.room)
