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
from layer45.modules.fec.wire cimport sbn_ahead


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
    let_go(context, state.line, state.line.count)
    state.line.next_sbn = sbn
    state.line.next_esi = 0


cdef inline int32_t ahead(const fec_line *line, uint32_t sbn, uint32_t esi) noexcept nogil:
    """Of whose turn it is; negative: late."""
    cdef int32_t blocks = sbn_ahead(sbn, line.next_sbn)
    return blocks if blocks else <int32_t> esi - <int32_t> line.next_esi


cdef inline bint has_turn(const fec_window *window, const fec_line *line, uint32_t sbn, uint32_t esi) noexcept nogil:
    if ahead(line, sbn, esi) <= 0:
        return True
    return esi == 0 and sbn_ahead(sbn, line.next_sbn) == 1 and line.next_esi \
        and window.sizes[slot_of(line.next_sbn)] == line.next_esi


cdef inline void pass_by(fec_line *line, uint32_t sbn, uint32_t esi) noexcept nogil:
    if ahead(line, sbn, esi) >= 0:
        line.next_sbn = sbn
        line.next_esi = esi + 1


cdef l45_verdict order_pass(l45_context *context, l45_packet *packet, uint32_t sbn, uint32_t esi,
                            bint owned) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    cdef fec_line *line = state.line
    if line == NULL:
        return L45_REWRITTEN
    if not has_turn(state.window, line, sbn, esi):
        return queue_up(context, line, packet, sbn, esi, owned)
    pass_by(line, sbn, esi)
    if not line.count or not has_turn(state.window, line, line.first[0].sbn, line.first[0].esi):
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


cdef l45_verdict queue_up(l45_context *context, fec_line *line, l45_packet *packet, uint32_t sbn, uint32_t esi,
                          bint owned) noexcept nogil:
    cdef l45_packet *held = packet if owned else context.host.hold(context, packet)
    cdef uint32_t at = line.count
    if held == NULL:
        return L45_REWRITTEN
    if line.count == MOST_WAITING:
        let_go(context, line, 1)
        at -= 1
    while at and ahead_of(&line.first[at - 1], sbn, esi):
        at -= 1
    memmove(&line.first[at + 1], &line.first[at], (line.count - at) * sizeof(waiting))
    line.first[at].packet = held
    line.first[at].until_ns = context.now_ns + (<fec_instance *> context.instance).reorder_ns
    line.first[at].sbn = sbn
    line.first[at].esi = esi
    line.count += 1
    count(context, WAITED, 1)
    wake_at(context, line.first[at].until_ns)
    return L45_HOLD


cdef inline bint ahead_of(const waiting *one, uint32_t sbn, uint32_t esi) noexcept nogil:
    """Whether one that waits is to go after such a one."""
    cdef int32_t blocks = sbn_ahead(one.sbn, sbn)
    return blocks > 0 or blocks == 0 and one.esi > esi


cdef void let_go(l45_context *context, fec_line *line, uint32_t some) noexcept nogil:
    """The first ones, whosever turn it is."""
    cdef uint32_t at
    for at in range(some):
        pass_by(line, line.first[at].sbn, line.first[at].esi)
        context.host.resume(context, line.first[at].packet, 0)
    line.count -= some
    memmove(&line.first[0], &line.first[some], line.count * sizeof(waiting))


cdef void order_release(l45_context *context) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    cdef fec_line *line = state.line
    while line != NULL and line.count and has_turn(state.window, line, line.first[0].sbn, line.first[0].esi):
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
