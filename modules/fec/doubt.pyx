"""See doubt.pxd."""

from libc.stdint cimport int32_t, uint32_t

from layer45.fastpath.abi cimport (
    L45_DROP, L45_HOLD, L45_PASS, L45_REWRITTEN, l45_context, l45_packet, l45_verdict,
)
from layer45.fastpath.packet cimport payload, remove_back
from layer45.modules.fec.admit cimport admit, end_blocks
from layer45.modules.fec.order cimport order_begin, order_end
from layer45.modules.fec.state cimport *
from layer45.modules.fec.window cimport begin_at, begin_behind, is_near
from layer45.modules.fec.wire cimport ID_BYTES, SBN_MASK, fec_id, id_valid, is_source, sbn_ahead

cdef enum:
    CLOSE_BLOCKS = 16           # datagrams in a row are not farther apart: the most that are interleaved
    DOUBT_NS = 30000000         # how long a datagram is held for the next one
    MOST_STRANGERS = 16         # so many in a row are of no numbering: none is in use


cdef l45_verdict unmarked(l45_context *context) noexcept nogil:
    """Many in a row: what was taken for a numbering was none, or the peer has stopped; until two say it goes on."""
    cdef fec_state *state = <fec_state *> context.state
    count(context, UNMARKED, 1)
    state.strangers += 1
    state.beside = 1
    if state.strangers >= MOST_STRANGERS:
        state.heard = NOTHING
    return L45_DROP if (<fec_instance *> context.instance).drop_unmarked else L45_PASS


cdef l45_verdict stale(l45_context *context) noexcept nogil:
    count(context, STALE, 1)
    return L45_DROP


cdef void forget(l45_context *context) noexcept nogil:
    if (<fec_state *> context.state).window != NULL:
        end_blocks(context)
    order_end(context)


cdef inline bint is_same(fec_id one, fec_id other) noexcept nogil:
    return one.sbn == other.sbn and one.esi == other.esi and one.k == other.k


cdef bint follows(fec_id first, fec_id second) noexcept nogil:
    """Whether two datagrams in a row have ids as one sender gives them, in whatever order they came."""
    cdef int32_t apart = sbn_ahead(second.sbn, first.sbn)
    if apart == 0:
        return first.esi != second.esi and (first.k == second.k or not is_source(first) or not is_source(second))
    return -CLOSE_BLOCKS <= apart <= CLOSE_BLOCKS and first.k == second.k and is_source(first) and is_source(second)


cdef inline bint goes_on(fec_id before, const l45_packet *held, fec_id id) noexcept nogil:
    """Whether a block's last repair and then a datagram of the next block came. Repair symbols begin with a 0."""
    return held != NULL and payload(held)[0] == 0 and not is_source(before) and is_source(id) \
        and before.k <= id.k and 0 < sbn_ahead(id.sbn, before.sbn) <= CLOSE_BLOCKS


cdef l45_verdict believe(l45_context *context, l45_packet *packet, fec_id id, uint32_t first_sbn,
                         bint owned) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    cdef bint gone_on = state.window == NULL and has_gone_on(state, id)
    cdef int32_t ahead = ahead_of(state, id) if gone_on else -1
    cdef bint amid = state.window == NULL and (ahead >= 0 or (gone_on or first_sbn != first_of(id)) and id.esi != 0)
    if state.heard == NOTHING and state.window != NULL and is_near(state.window, id.sbn) \
            and is_near(state.window, first_sbn):
        set_heard(state)
        return admit(context, packet, id, owned)
    if state.window != NULL:
        count(context, RESTARTS, 1)
        forget(context)
        swap_windows(state)
    if state.window == NULL:
        state.window = <fec_window *> context.host.take(context, sizeof(fec_window))
    if state.window == NULL:
        state.heard = NOTHING
        if is_source(id) and ahead <= 0:
            state.doubtful_id = id  # so that the next one follows it
        count(context, NO_MEMORY, 1)
        return bare(context, packet, id)
    set_heard(state)
    if amid:
        begin_behind(state.window, id.sbn + max(ahead, 0) & SBN_MASK, first_of(id))
    else:
        begin_at(state.window, id.sbn if gone_on else first_sbn, first_of(id))
    order_begin(context, state.window.newest)
    return admit(context, packet, id, owned)


cdef inline bint has_gone_on(const fec_state *state, fec_id id) noexcept nogil:
    """Whether others before it were let go without a window, for want of memory."""
    return id_valid(state.doubtful_id) and (state.doubtful_id.sbn != id.sbn or state.doubtful_id.esi != id.esi)


cdef inline int32_t ahead_of(const fec_state *state, fec_id id) noexcept nogil:
    """By how many blocks the one that was let go last is ahead of one that it has overtaken; -1: it has not."""
    cdef int32_t ahead = sbn_ahead(state.doubtful_id.sbn, id.sbn)
    return ahead if 0 <= ahead <= CLOSE_BLOCKS else -1


cdef inline void set_heard(fec_state *state) noexcept nogil:
    state.heard = A_NUMBERING
    state.doubtful_id.k = 0
    state.doubts = state.strangers = 0


cdef inline void swap_windows(fec_state *state) noexcept nogil:
    cdef fec_window *older = state.previous
    state.previous = state.window
    state.window = older


cdef l45_verdict bare(l45_context *context, l45_packet *packet, fec_id id) noexcept nogil:
    """What is left to do without a window."""
    if not is_source(id):
        count(context, REPAIRS_ARRIVED, 1)
        return L45_DROP
    remove_back(packet, ID_BYTES)
    count(context, ARRIVED, 1)
    return L45_REWRITTEN


cdef l45_verdict doubt(l45_context *context, l45_packet *packet, fec_id id) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    cdef fec_id before = state.doubtful_id
    cdef l45_packet *held = state.doubtful
    if id_valid(before) and (follows(before, id) or goes_on(before, held, id)):
        state.doubtful = NULL
        return believe_both(context, held, before, packet, id)
    if held != NULL and state.heard == A_NUMBERING and is_same(before, id):
        count(context, DUPLICATE, 1)
        return L45_DROP
    dismiss(context)
    state.doubtful_id = id
    if state.doubts < MOST_DOUBTS:
        state.doubtful = context.host.hold(context, packet)
        state.beside = 0
    if state.doubtful == NULL:
        return stale(context) if state.heard == A_NUMBERING else unmarked(context)
    state.doubtful_until_ns = context.now_ns + DOUBT_NS
    wake_at(context, state.doubtful_until_ns)
    return L45_HOLD


cdef l45_verdict believe_both(l45_context *context, l45_packet *held, fec_id first, l45_packet *packet,
                              fec_id second) noexcept nogil:
    cdef fec_id early = first if sbn_ahead(second.sbn, first.sbn) >= 0 else second
    if held == NULL:
        return believe(context, packet, second, early.sbn, False)
    release(context, held, believe(context, held, first, early.sbn, True))
    if (<fec_state *> context.state).heard == NOTHING:
        return bare(context, packet, second)
    return admit(context, packet, second, False)


cdef void release(l45_context *context, l45_packet *held, l45_verdict verdict) noexcept nogil:
    """Does with a packet of ours what the verdict says."""
    if verdict == L45_PASS or verdict == L45_REWRITTEN:
        context.host.resume(context, held, 0)
    elif verdict != L45_HOLD:
        context.host.discard(context, held)


cdef l45_verdict dismissed(l45_context *context, l45_packet *held) noexcept nogil:
    """Behind strangers: so few of a flow are ever held that noise among them does not hit upon a first one's id."""
    cdef fec_id id = (<fec_state *> context.state).doubtful_id
    if is_first(<fec_instance *> context.instance, held, id):
        return believe(context, held, id, begins_at(id), True)
    return unmarked(context)


cdef void dismiss(l45_context *context) noexcept nogil:
    """The one that is held may be the only one of a peer that began anew."""
    cdef fec_state *state = <fec_state *> context.state
    cdef l45_packet *held = state.doubtful
    if held == NULL:
        return
    state.doubtful = NULL
    state.doubts += 1
    if state.heard == NOTHING:
        release(context, held, dismissed(context, held))
    elif state.beside:  # the peer sends some without ids, and this one only ends like an id
        release(context, held, unmarked(context))
    elif is_first(<fec_instance *> context.instance, held, state.doubtful_id) \
            and first_of(state.doubtful_id) != state.window.first:
        release(context, held, bare(context, held, state.doubtful_id))
    else:
        release(context, held, stale(context))
