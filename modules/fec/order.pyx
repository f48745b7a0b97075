"""A line of datagrams that came before their turn, each held in the kernel's queue.

It is a datagram's turn when the one before it has gone: the same block's, or the last one of the block before, whose
size must be known for that. Those that come late go at once. All this is for senders that do not interleave: whose
numbers are the order of their datagrams.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memmove

from layer45.fastpath.abi cimport L45_HOLD, L45_NEVER, L45_REWRITTEN, l45_context, l45_packet, l45_verdict
from layer45.modules.fec.state cimport *
from layer45.modules.fec.window cimport slot_of
from layer45.modules.fec.wire cimport SBN_MASK, fec_id, sbn_ahead


cdef void order_begin(l45_context *context, uint32_t sbn) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    if not (<fec_instance *> context.instance).reorder_ns:
        return
    if state.line == NULL:
        state.line = <fec_line *> context.host.take(context, sizeof(fec_line))
        if state.line == NULL:
            count(context, NO_MEMORY, 1)
            return
    state.line.count = 0
    state.line.next_sbn = sbn
    state.line.next_esi = 0


cdef inline int32_t ahead(const fec_line *line, fec_id id) noexcept nogil:
    """Of whose turn it is; negative: late."""
    cdef int32_t blocks = sbn_ahead(id.sbn, line.next_sbn)
    return blocks if blocks else <int32_t> id.esi - <int32_t> line.next_esi


cdef inline bint has_turn(const fec_window *window, const fec_line *line, fec_id id) noexcept nogil:
    if ahead(line, id) <= 0:
        return True
    return id.esi == 0 and sbn_ahead(id.sbn, line.next_sbn) == 1 and line.next_esi \
        and window.sizes[slot_of(line.next_sbn)] == line.next_esi


cdef inline void pass_by(fec_line *line, fec_id id) noexcept nogil:
    cdef bint is_last = id.esi + 1 == id.k
    if ahead(line, id) >= 0:
        line.next_sbn = (id.sbn + is_last) & SBN_MASK
        line.next_esi = 0 if is_last else id.esi + 1


cdef l45_verdict order_pass(l45_context *context, l45_packet *packet, fec_id id, bint owned) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    cdef fec_line *line = state.line
    if line == NULL:
        return L45_REWRITTEN
    if line.count == MOST_WAITING:
        let_go(context, line, 1)
        order_release(context)
    if not has_turn(state.window, line, id):
        return queue_up(context, line, packet, id, owned)
    pass_by(line, id)
    if not line.count or not has_turn(state.window, line, line.first[0].id):
        return L45_REWRITTEN
    return go_first(context, packet, owned)


cdef l45_verdict go_first(l45_context *context, l45_packet *packet, bint owned) noexcept nogil:
    """Those behind it leave within this call, so it must too. If it can't be held, they leave a little later."""
    cdef l45_packet *held = packet if owned else context.host.hold(context, packet)
    if held == NULL:
        wake_at(context, context.now_ns)
        return L45_REWRITTEN
    context.host.resume(context, held, 0)
    order_release(context)
    return L45_HOLD


cdef l45_verdict queue_up(l45_context *context, fec_line *line, l45_packet *packet, fec_id id,
                          bint owned) noexcept nogil:
    cdef l45_packet *held = packet if owned else context.host.hold(context, packet)
    cdef uint32_t at = line.count
    if held == NULL:
        return L45_REWRITTEN
    while at and goes_behind(line.first[at - 1].id, id):
        at -= 1
    memmove(&line.first[at + 1], &line.first[at], (line.count - at) * sizeof(waiting))
    line.first[at].packet = held
    line.first[at].until_ns = context.now_ns + (<fec_instance *> context.instance).reorder_ns
    line.first[at].id = id
    line.count += 1
    count(context, WAITED, 1)
    wake_at(context, line.first[at].until_ns)
    return L45_HOLD


cdef inline bint goes_behind(fec_id one, fec_id other) noexcept nogil:
    cdef int32_t blocks = sbn_ahead(one.sbn, other.sbn)
    return blocks > 0 or blocks == 0 and one.esi > other.esi


cdef void let_go(l45_context *context, fec_line *line, uint32_t some) noexcept nogil:
    """The first ones, whosever turn it is."""
    cdef uint32_t at
    for at in range(some):
        pass_by(line, line.first[at].id)
        context.host.resume(context, line.first[at].packet, 0)
    line.count -= some
    memmove(&line.first[0], &line.first[some], line.count * sizeof(waiting))


cdef void order_release(l45_context *context) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    cdef fec_line *line = state.line
    while line != NULL and line.count and has_turn(state.window, line, line.first[0].id):
        let_go(context, line, 1)


cdef uint64_t order_due(l45_context *context) noexcept nogil:
    """The first one may have come after those behind it, and still go with them: waiting is for those before."""
    cdef fec_line *line = (<fec_state *> context.state).line
    cdef uint64_t next_ns = L45_NEVER
    cdef uint32_t at, due = 0
    if line == NULL:
        return L45_NEVER
    for at in range(line.count):
        if line.first[at].until_ns <= context.now_ns:
            due = at + 1
    let_go(context, line, due)
    order_release(context)
    for at in range(line.count):
        next_ns = min(next_ns, line.first[at].until_ns)
    return next_ns


cdef void order_end(l45_context *context) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    if state.line != NULL:
        let_go(context, state.line, state.line.count)
        context.host.give(context, state.line)
        state.line = NULL
