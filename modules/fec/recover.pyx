"""lay_out (the symbols that are there) -> solve (those that are not) -> deliver, each in a repair as its carrier."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport L45_DROP, L45_REWRITTEN, l45_context, l45_packet, l45_verdict
from layer45.fastpath.packet cimport insert_back, load_be16, payload, payload_bytes, remove_back
from layer45.fastpath.reed_solomon cimport RS_MOST_REPAIRS, RS_MOST_SOURCES, rs_decode, rs_room_bytes
from layer45.modules.fec.block cimport block_end, esis_of, held_of, lengths_of
from layer45.modules.fec.order cimport order_pass
from layer45.modules.fec.state cimport *
from layer45.modules.fec.window cimport see, seen
from layer45.modules.fec.wire cimport HEAD_BYTES, ID_BYTES, fec_id, is_symbol

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


cdef l45_verdict recover(l45_context *context, in_block *block, l45_packet *last, uint32_t esi,
                         bint owned) noexcept nogil:
    cdef puzzle all
    cdef uint64_t begun_ns
    cdef uint32_t bytes = block.bytes
    cdef fec_id id
    cdef bint solved
    id.sbn, id.k = block.sbn, block.size
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
        return deliver(context, &all, id, last, owned)
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


cdef l45_verdict deliver(l45_context *context, puzzle *all, fec_id id, l45_packet *last, bint owned) noexcept nogil:
    """In the order in which they were sent; the carrier that has just come is the last one."""
    cdef l45_verdict verdict = L45_DROP
    cdef uint32_t gap
    for gap in range(all.gaps):
        id.esi = all.missing[gap]
        verdict = deliver_one(context, all.carriers[gap], all.made[gap], id, owned or all.carriers[gap] != last)
        context.host.give(context, all.made[gap])
        if all.carriers[gap] == last:
            continue
        if verdict == L45_REWRITTEN:
            context.host.resume(context, all.carriers[gap], 0)
        elif verdict == L45_DROP:
            context.host.discard(context, all.carriers[gap])
    return verdict


cdef l45_verdict deliver_one(l45_context *context, l45_packet *carrier, const uint8_t *symbol, fec_id id,
                             bint owned) noexcept nogil:
    """DROP: it was not lost but went on when it came, and only its symbol could not be kept."""
    cdef fec_window *window = (<fec_state *> context.state).window
    if seen(window, id.sbn, id.esi):
        return L45_DROP
    see(window, id.sbn, id.esi)
    count(context, RECOVERED, 1)
    become(carrier, symbol)
    return order_pass(context, carrier, id, owned)


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
