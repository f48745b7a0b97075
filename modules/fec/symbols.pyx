"""Symbols come: into their block, and when it has all or enough of them, on to its end or to recover.pyx.

A repair waits un-verdicted in the kernel's queue and becomes the carrier of a recovered datagram: as many are missing
as there are repairs, by the time that there are enough.
"""

from libc.stdint cimport uint8_t, uint32_t

from layer45.fastpath.abi cimport L45_DROP, L45_HOLD, l45_context, l45_packet, l45_verdict
from layer45.fastpath.packet cimport payload, payload_bytes, remove_back
from layer45.modules.fec.block cimport block_end, block_of, esis_of, held_of, know_size, lengths_of, repair_room
from layer45.modules.fec.recover cimport recover
from layer45.modules.fec.state cimport *
from layer45.modules.fec.wire cimport HEAD_BYTES, ID_BYTES, fec_id


cdef void block_source(l45_context *context, const l45_packet *packet, fec_id id) noexcept nogil:
    cdef in_block *block = block_of(context, id)
    cdef uint32_t bytes = HEAD_BYTES + payload_bytes(packet) - ID_BYTES
    if block == NULL:
        return
    if source_contradicts(block, id, bytes):
        count(context, INVALID, 1)
        return
    block.symbols[id.esi] = new_symbol(context, payload(packet), bytes)
    if block.symbols[id.esi] == NULL:
        count(context, NO_MEMORY, 1)
        return
    lengths_of(block)[id.esi] = bytes
    block.longest = max(block.longest, bytes)
    block.end = max(block.end, id.esi + 1)
    block.sources += 1
    if block.sources == block.size:
        block_end(context, block)
    elif block.sure and block.sources + block.repairs == block.size:
        recover(context, block, NULL, 0, False)


cdef inline bint source_contradicts(const in_block *block, fec_id id, uint32_t bytes) noexcept nogil:
    if block.sure:
        return id.esi >= block.size or bytes > block.bytes
    return id.k != block.size


cdef l45_verdict block_repair(l45_context *context, l45_packet *packet, fec_id id, bint owned) noexcept nogil:
    cdef in_block *block = block_of(context, id)
    cdef uint32_t bytes = payload_bytes(packet) - ID_BYTES
    if block == NULL:
        return L45_DROP
    if repair_contradicts(block, id, bytes):
        count(context, INVALID, 1)
        return L45_DROP
    block.sure = True
    block.size = id.k
    block.bytes = bytes
    know_size((<fec_state *> context.state).window, block)
    if block.sources == block.size:
        block_end(context, block)
        return L45_DROP
    if is_held(block, id.esi):
        count(context, DUPLICATE, 1)
        return L45_DROP
    if block.sources + block.repairs + 1 == block.size:
        return recover(context, block, packet, id.esi, owned)
    return hold(context, block, packet, id.esi, owned)


cdef inline bint repair_contradicts(const in_block *block, fec_id id, uint32_t bytes) noexcept nogil:
    if block.sure:
        return id.k != block.size or bytes != block.bytes
    return id.k > block.room or id.k < block.end or bytes < max(block.longest, <uint32_t> HEAD_BYTES)


cdef bint is_held(in_block *block, uint32_t esi) noexcept nogil:
    cdef uint32_t at
    for at in range(block.repairs):
        if esis_of(block)[at] == esi:
            return True
    return False


cdef l45_verdict hold(l45_context *context, in_block *block, l45_packet *packet, uint32_t esi,
                      bint owned) noexcept nogil:
    cdef l45_packet *held = packet if owned else context.host.hold(context, packet)
    if held == NULL or block.repairs == repair_room(block.room):
        count(context, NOT_HELD, 1)
        return L45_DROP
    remove_back(held, ID_BYTES)
    held_of(block)[block.repairs] = held
    esis_of(block)[block.repairs] = <uint8_t> esi
    block.repairs += 1
    return L45_HOLD
