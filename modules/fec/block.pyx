"""A block's way: open -> symbols come (block_source, block_repair) -> settled: all there, or recover -> block_end.

Behind an in_block and its `room` symbols lie, in this order: the held repairs, the symbols' lengths, the repairs' ESIs.
A repair waits un-verdicted in the kernel's queue and becomes the carrier of a recovered datagram: as many are missing
as there are repairs, by the time that there are enough.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport L45_DROP, L45_HOLD, L45_NEVER, L45_REWRITTEN, l45_context, l45_packet, l45_verdict
from layer45.fastpath.packet cimport insert_back, load_be16, payload, payload_bytes, remove_back, store_be16
from layer45.fastpath.reed_solomon cimport RS_MOST_REPAIRS, RS_MOST_SOURCES, rs_decode, rs_room_bytes
from layer45.modules.fec.order cimport order_pass
from layer45.modules.fec.state cimport *
from layer45.modules.fec.window cimport see, slot_of
from layer45.modules.fec.wire cimport HEAD_BYTES, ID_BYTES, fec_id, sbn_ahead

cdef enum:
    MOST_OPEN = 48          # blocks of a flow

# A whole block's symbols as the decoder wants them, and what comes of it.
cdef struct puzzle:
    uint32_t known
    uint32_t gaps
    uint32_t carried
    uint8_t positions[RS_MOST_SOURCES]
    uint8_t *symbols[RS_MOST_SOURCES]
    uint32_t lengths[RS_MOST_SOURCES]
    uint8_t missing[RS_MOST_REPAIRS]
    uint8_t *made[RS_MOST_REPAIRS]
    l45_packet *carriers[RS_MOST_REPAIRS]


cdef inline uint32_t repair_room(uint32_t room) noexcept nogil:
    return min(room, <uint32_t> RS_MOST_REPAIRS)


cdef inline l45_packet **held_of(in_block *block) noexcept nogil:
    return <l45_packet **> (block.symbols + block.room)


cdef inline uint32_t *lengths_of(in_block *block) noexcept nogil:
    return <uint32_t *> (held_of(block) + repair_room(block.room))


cdef inline uint8_t *esis_of(in_block *block) noexcept nogil:
    return <uint8_t *> (lengths_of(block) + block.room)


# --- its beginning and its end ----------------------------------------------------------------------------------------

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
    for at in range(block.repairs):
        context.host.discard(context, held_of(block)[at])
    for at in range(block.end):
        context.host.give(context, block.symbols[at])
    context.host.give(context, block)


cdef inline void know_size(fec_window *window, const in_block *block) noexcept nogil:
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


# --- symbols come -----------------------------------------------------------------------------------------------------

cdef void block_source(l45_context *context, const l45_packet *packet, fec_id id) noexcept nogil:
    cdef in_block *block = block_of(context, id)
    cdef uint32_t bytes = HEAD_BYTES + payload_bytes(packet) - ID_BYTES
    if block == NULL:
        return
    if source_contradicts(block, id, bytes):
        count(context, INVALID, 1)
        return
    block.symbols[id.esi] = copied(context, payload(packet), bytes)
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


cdef uint8_t *copied(l45_context *context, const uint8_t *content, uint32_t bytes) noexcept nogil:
    """The source symbol of a payload of bytes - HEAD_BYTES."""
    cdef uint32_t room = rs_room_bytes(bytes)
    cdef uint8_t *symbol = <uint8_t *> context.host.take(context, room)
    if symbol == NULL:
        return NULL
    symbol[0] = 0
    store_be16(symbol + 1, bytes - HEAD_BYTES)
    memcpy(symbol + HEAD_BYTES, content, bytes - HEAD_BYTES)
    memset(symbol + bytes, 0, room - bytes)
    return symbol


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


cdef l45_verdict hold(l45_context *context, in_block *block, l45_packet *packet, uint32_t esi, bint owned) noexcept nogil:
    cdef l45_packet *held = packet if owned else context.host.hold(context, packet)
    if held == NULL or block.repairs == repair_room(block.room):
        count(context, NOT_HELD, 1)
        return L45_DROP
    remove_back(held, ID_BYTES)
    held_of(block)[block.repairs] = held
    esis_of(block)[block.repairs] = <uint8_t> esi
    block.repairs += 1
    return L45_HOLD


# --- lost ones made anew ----------------------------------------------------------------------------------------------

cdef l45_verdict recover(l45_context *context, in_block *block, l45_packet *last, uint32_t esi,
                         bint owned) noexcept nogil:
    """There are enough symbols. last: the repair that has just come, if it was one; the answer is its verdict. owned: it
    is held already."""
    cdef puzzle all
    cdef uint64_t begun_ns
    cdef uint32_t bytes = block.bytes
    cdef uint32_t sbn = block.sbn
    cdef bint solved
    lay_out(block, &all)
    if last != NULL:
        remove_back(last, ID_BYTES)
        add_repair(&all, last, esi)
    begun_ns = context.host.clock_ns(context)
    solved = take_room(context, &all, bytes) and solve(context, block, &all)
    count(context, DECODE_NS, context.host.clock_ns(context) - begun_ns)
    if solved:
        block.sources += all.gaps
    block.repairs = 0
    block_end(context, block)
    if solved:
        count(context, RECOVERED, all.gaps)
        return deliver(context, &all, sbn, last, owned)
    give_up(context, &all, last)
    return L45_DROP


cdef void lay_out(in_block *block, puzzle *all) noexcept nogil:
    cdef uint32_t at
    all.known = all.gaps = all.carried = 0
    for at in range(block.size):
        if block.symbols[at] == NULL:
            all.missing[all.gaps] = <uint8_t> at
            all.made[all.gaps] = NULL
            all.gaps += 1
        else:
            all.positions[all.known] = <uint8_t> at
            all.symbols[all.known] = block.symbols[at]
            all.lengths[all.known] = lengths_of(block)[at]
            all.known += 1
    for at in range(block.repairs):
        add_repair(all, held_of(block)[at], esis_of(block)[at])


cdef void add_repair(puzzle *all, l45_packet *packet, uint32_t esi) noexcept nogil:
    """Its symbol stays where it is, with zeros behind it."""
    cdef uint32_t bytes = payload_bytes(packet)
    memset(packet.tail, 0, rs_room_bytes(bytes) - bytes)
    all.carriers[all.carried] = packet
    all.carried += 1
    all.positions[all.known] = <uint8_t> esi
    all.symbols[all.known] = payload(packet)
    all.lengths[all.known] = bytes
    all.known += 1


cdef bint take_room(l45_context *context, puzzle *all, uint32_t bytes) noexcept nogil:
    cdef uint32_t gap
    for gap in range(all.gaps):
        all.made[gap] = <uint8_t *> context.host.take(context, rs_room_bytes(bytes))
        if all.made[gap] == NULL:
            count(context, NO_MEMORY, 1)
            return False
    return True


cdef bint solve(l45_context *context, const in_block *block, puzzle *all) noexcept nogil:
    """Whether what comes out are symbols that a sender makes: one forged repair spoils all of them."""
    cdef uint32_t gap
    rs_decode(block.size, all.positions, all.symbols, all.lengths, all.made, block.bytes)
    for gap in range(all.gaps):
        if not is_symbol(all.made[gap], block.bytes):
            count(context, INVALID, 1)
            return False
    return True


cdef bint is_symbol(const uint8_t *symbol, uint32_t bytes) noexcept nogil:
    cdef uint32_t at = HEAD_BYTES + load_be16(symbol + 1)
    if symbol[0] != 0 or at > bytes:
        return False
    while at < bytes:
        if symbol[at]:
            return False
        at += 1
    return True


cdef l45_verdict deliver(l45_context *context, puzzle *all, uint32_t sbn, l45_packet *last,
                         bint owned) noexcept nogil:
    """In the order in which they were sent; the carrier that has just come is the last one."""
    cdef fec_window *window = (<fec_state *> context.state).window
    cdef l45_verdict verdict = L45_DROP
    cdef uint32_t gap
    for gap in range(all.gaps):
        see(window, sbn, all.missing[gap])
        become(all.carriers[gap], all.made[gap])
        context.host.give(context, all.made[gap])
        verdict = order_pass(context, all.carriers[gap], sbn, all.missing[gap], owned or all.carriers[gap] != last)
        if verdict == L45_REWRITTEN and all.carriers[gap] != last:
            context.host.resume(context, all.carriers[gap], 0)
    return verdict


cdef void become(l45_packet *carrier, const uint8_t *symbol) noexcept nogil:
    """It never grows: a symbol is as long as the repair at most."""
    remove_back(carrier, payload_bytes(carrier))
    insert_back(carrier, symbol + HEAD_BYTES, load_be16(symbol + 1))


cdef void give_up(l45_context *context, puzzle *all, const l45_packet *last) noexcept nogil:
    cdef uint32_t gap
    for gap in range(all.gaps):
        context.host.give(context, all.made[gap])
        if all.carriers[gap] != last:
            context.host.discard(context, all.carriers[gap])
