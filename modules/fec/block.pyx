"""See block.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport L45_NEVER, l45_context, l45_packet
from layer45.modules.fec.losses cimport losses_of
from layer45.modules.fec.state cimport *
from layer45.modules.fec.window cimport slot_of
from layer45.modules.fec.wire cimport fec_id, sbn_ahead

cdef enum:
    MOST_OPEN = 48          # blocks of a flow

cdef in_block *block_of(l45_context *context, fec_id id) noexcept nogil:
    """The open one, or a new one; NULL: no memory."""
    cdef fec_window *window = (<fec_state *> context.state).window
    cdef in_block *block = window.blocks[slot_of(id.sbn)]
    if block != NULL:
        return block
    if window.open == MOST_OPEN:
        count(context, BLOCKS_DROPPED, 1)
        block_end(context, oldest(window))
    block = new_block(context, id)
    if block == NULL:
        return NULL
    count(context, OTHER_PARAMETERS, id.esi < id.k and id.k != (<fec_instance *> context.instance).k)
    window.blocks[slot_of(id.sbn)] = block
    window.open += 1
    wake_at(context, context.now_ns + (<fec_instance *> context.instance).give_up_ns)
    return block


cdef in_block *new_block(l45_context *context, fec_id id) noexcept nogil:
    cdef size_t bytes = sizeof(in_block) + id.k * (sizeof(uint8_t *) + sizeof(uint32_t)) \
        + repair_room(id.k) * (sizeof(l45_packet *) + 1)
    cdef in_block *block = <in_block *> context.host.take(context, bytes)
    if block == NULL:
        count(context, NO_MEMORY, 1)
        return NULL
    memset(block, 0, bytes)
    block.opened_ns = context.now_ns
    block.sbn = id.sbn
    block.size = block.room = id.k
    return block


cdef in_block *oldest(const fec_window *window) noexcept nogil:
    """Of the open blocks, the one farthest behind; there is one."""
    cdef in_block *found = NULL
    cdef uint32_t slot
    for slot in range(<uint32_t> WINDOW):
        if window.blocks[slot] != NULL and (found == NULL or sbn_ahead(window.blocks[slot].sbn, found.sbn) < 0):
            found = window.blocks[slot]
    return found


cdef void block_end(l45_context *context, in_block *block) noexcept nogil:
    cdef fec_window *window = (<fec_state *> context.state).window
    cdef uint32_t size = block.size if block.sure else block.end
    cdef uint32_t at
    window.blocks[slot_of(block.sbn)] = NULL
    window.over[slot_of(block.sbn)] = True
    window.open -= 1
    if block.sure or block.sources == block.size:
        know_size(window, block)
    count(context, UNRECOVERED, size - block.sources)
    losses_of(context, block, size)
    for at in range(block.repairs):
        context.host.discard(context, held_of(block)[at])
    for at in range(block.end):
        context.host.give(context, block.symbols[at])
    context.host.give(context, block)


cdef void know_size(fec_window *window, const in_block *block) noexcept nogil:
    window.usual_size = block.size
    window.sizes[slot_of(block.sbn)] = <uint8_t> block.size


cdef uint64_t blocks_due(l45_context *context) noexcept nogil:
    cdef fec_window *window = (<fec_state *> context.state).window
    cdef uint64_t give_up_ns = (<fec_instance *> context.instance).give_up_ns
    cdef uint64_t next_ns = L45_NEVER
    cdef uint32_t slot
    if window == NULL or window.open == 0:
        return L45_NEVER
    for slot in range(<uint32_t> WINDOW):
        if window.blocks[slot] == NULL:
            continue
        if window.blocks[slot].opened_ns + give_up_ns <= context.now_ns:
            block_end(context, window.blocks[slot])
        else:
            next_ns = min(next_ns, window.blocks[slot].opened_ns + give_up_ns)
    return next_ns
