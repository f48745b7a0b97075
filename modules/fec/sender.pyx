"""A datagram's way out: begin (a group of blocks) -> symbol_of -> number -> keep -> close (a full block) -> repair.

A group is `interleave` blocks that are open at the same time. Datagrams are dealt out to them in turn, and one
deadline, that of the group's first datagram, holds for all.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport L45_ERROR, L45_NEVER, L45_REWRITTEN, l45_context, l45_packet, l45_verdict
from layer45.fastpath.packet cimport insert_back, payload, payload_bytes, room_back
from layer45.modules.fec.repair cimport lengths_of, repair, take_turn
from layer45.modules.fec.state cimport *
from layer45.modules.fec.wire cimport HEAD_BYTES, ID_BYTES, SBN_COUNT, id_write


cdef inline size_t block_bytes(const fec_instance *fec) noexcept nogil:
    return (sizeof(out_block) + fec.k * (sizeof(uint8_t *) + sizeof(uint32_t)) + 7) & ~<size_t> 7


cdef inline out_block *block_at(const fec_instance *fec, const fec_out *out, uint32_t place) noexcept nogil:
    return <out_block *> (out.blocks + place * block_bytes(fec))


cdef l45_verdict send(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef fec_instance *fec = <fec_instance *> context.instance
    cdef fec_out *out = &(<fec_state *> context.state).out
    cdef uint32_t bytes = payload_bytes(packet)
    cdef uint32_t place, esi
    cdef uint8_t *symbol
    if out.dealt == 0:
        begin(context, out)
    place = out.dealt % out.interleave
    esi = out.dealt // out.interleave
    symbol = symbol_of(context, out, place, packet)
    if number(packet, out.base + place, esi, fec.k) < 0:
        context.host.give(context, symbol)
        count(context, NO_ROOM, 1)
        if out.dealt == 0:
            next_group(context, out)  # one that did not begin has memory too
        return L45_ERROR
    take_turn(out, packet)
    count(context, SOURCES, 1)
    count(context, SOURCE_BYTES, bytes)
    count(context, ADDED_BYTES, ID_BYTES)
    out.dealt += 1
    keep(context, out, place, symbol, HEAD_BYTES + bytes)
    if esi + 1 == fec.k:
        close(context, out, place, fec.k)
    if out.dealt == fec.k * out.interleave:
        next_group(context, out)
    return L45_REWRITTEN


cdef void begin(l45_context *context, fec_out *out) noexcept nogil:
    cdef fec_instance *fec = <fec_instance *> context.instance
    cdef size_t bytes = out.interleave * block_bytes(fec)
    out.blocks = <uint8_t *> context.host.take(context, bytes)
    if out.blocks != NULL:
        memset(out.blocks, 0, bytes)
    out.deadline_ns = context.now_ns + fec.deadline_ns
    wake_at(context, out.deadline_ns)


cdef inline int number(l45_packet *packet, uint32_t sbn, uint32_t esi, uint32_t k) noexcept nogil:
    cdef uint8_t id[ID_BYTES]
    id_write(id, sbn, esi, k)
    return insert_back(packet, id, ID_BYTES)


cdef uint8_t *symbol_of(l45_context *context, const fec_out *out, uint32_t place,
                        const l45_packet *packet) noexcept nogil:
    """NULL: no memory, or no packet could carry a repair symbol of that length, or so it was with one before in the
    block."""
    if out.blocks == NULL or HEAD_BYTES + ID_BYTES > room_back(packet) \
            or block_at(<fec_instance *> context.instance, out, place).spoilt:
        return NULL
    return new_symbol(context, payload(packet), HEAD_BYTES + payload_bytes(packet))


cdef void keep(l45_context *context, fec_out *out, uint32_t place, uint8_t *symbol, uint32_t bytes) noexcept nogil:
    """Puts a symbol into its block. Where one is wanting the others are of no use, but their memory is to others."""
    cdef const fec_instance *fec = <const fec_instance *> context.instance
    cdef out_block *block
    if out.blocks == NULL:
        return
    block = block_at(fec, out, place)
    if symbol == NULL:
        block.spoilt = True
        give_symbols(context, block)
        return
    block.symbols[block.count] = symbol
    lengths_of(fec, block)[block.count] = bytes
    block.bytes = max(block.bytes, bytes)
    block.count += 1


cdef void give_symbols(l45_context *context, out_block *block) noexcept nogil:
    cdef uint32_t at
    for at in range(block.count):
        context.host.give(context, block.symbols[at])
    block.count = 0


cdef uint64_t send_due(l45_context *context) noexcept nogil:
    cdef fec_out *out = &(<fec_state *> context.state).out
    if out.dealt == 0:
        return L45_NEVER
    if out.deadline_ns > context.now_ns:
        return out.deadline_ns
    send_end(context)
    return L45_NEVER


cdef void send_end(l45_context *context) noexcept nogil:
    cdef fec_instance *fec = <fec_instance *> context.instance
    cdef fec_out *out = &(<fec_state *> context.state).out
    cdef uint32_t place, size
    if out.dealt == 0:
        return
    for place in range(out.interleave):
        size = (out.dealt + out.interleave - 1 - place) // out.interleave
        if 0 < size < fec.k:
            close(context, out, place, size)
    next_group(context, out)


cdef void next_group(l45_context *context, fec_out *out) noexcept nogil:
    """It begins behind the numbers that were used; none lies across the numbers' end."""
    context.host.give(context, out.blocks)
    out.blocks = NULL
    out.base += min(out.dealt, out.interleave)
    out.interleave = out.next_interleave
    if out.base + out.interleave > SBN_COUNT:
        out.base = 0
    out.dealt = 0


cdef void close(l45_context *context, fec_out *out, uint32_t place, uint32_t size) noexcept nogil:
    """Sends the repairs of a block of so many datagrams, and gives its symbols back."""
    cdef fec_instance *fec = <fec_instance *> context.instance
    cdef out_block *block = block_at(fec, out, place) if out.blocks != NULL else NULL
    count(context, BLOCKS_FULL if size == fec.k else BLOCKS_SHORT, 1)
    if block == NULL or block.spoilt:
        count(context, UNPROTECTED, size)
    else:
        repair(context, block, out.base + place, out.repairs)
    if block != NULL:
        give_symbols(context, block)
