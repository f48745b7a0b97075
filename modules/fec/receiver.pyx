"""A datagram's way in: is its id one of ours? -> admit -> a source goes on, a repair waits or becomes a lost one.

An id has no magic number: other traffic may end in bytes that look like one. So a numbering is believed in two cases
only: a flow's first datagram is as our senders begin (the first blocks, of the size that we use too), or two in a row
fit together. Until then the first of them is held (`doubt`), for a few milliseconds at the most; where a sender of ours
is at work its repairs, if not its next datagram, come within its deadline. The same goes for ids that are far from the
numbering in use: a peer that began anew, a replay, or a forgery.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport (
    L45_DROP, L45_ERROR, L45_HOLD, L45_NEVER, L45_PASS, L45_REWRITTEN, l45_context, l45_packet, l45_verdict,
)
from layer45.fastpath.packet cimport editable, payload, payload_bytes, remove_back, sum_holds
from layer45.modules.fec.admit cimport admit, admit_straggler, end_blocks
from layer45.modules.fec.apart cimport receive_apart
from layer45.modules.fec.block cimport blocks_due
from layer45.modules.fec.losses cimport report_due, report_take
from layer45.modules.fec.order cimport order_begin, order_due, order_end
from layer45.modules.fec.report cimport report_is
from layer45.modules.fec.state cimport *
from layer45.modules.fec.window cimport begin_at, is_near, is_past
from layer45.modules.fec.wire cimport (
    ID_BYTES, behind_first, fec_id, id_read, id_valid, is_source, is_symbol, sbn_ahead,
)

cdef enum:
    FIRST_BLOCKS = 16           # a flow that begins with one of these is believed
    CLOSE_BLOCKS = 16           # datagrams in a row are not farther apart: the most that are interleaved
    DOUBT_NS = 30000000         # how long a datagram is held for the next one
    MOST_DOUBTS = 8             # so many in a row came to nothing: hold no more
    MOST_STRANGERS = 16         # so many in a row are of no numbering: none is in use


cdef l45_verdict receive(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    cdef fec_id id
    if not editable(packet):
        count(context, NO_ROOM, 1)
        return L45_ERROR
    if is_apart(context):
        return receive_apart(context, packet)
    if payload_bytes(packet) < ID_BYTES:
        return unmarked(context)
    if report_is(payload(packet), payload_bytes(packet)):
        return report_take(context, packet)
    id = id_read(packet.tail - ID_BYTES)
    if not id_valid(id):
        return unmarked(context)
    if not sum_holds(packet):
        return corrupt(context, packet, id)
    if state.heard == A_NUMBERING and is_near(state.window, id.sbn):
        state.doubts = state.strangers = 0
        state.doubtful_id.k = 0  # what comes next does not come in a row with what is in doubt
        return admit(context, packet, id, False)
    if state.heard == A_NUMBERING and state.doubts < MOST_DOUBTS and is_past(state.window, id.sbn):
        state.doubts += 1
        return stale(context)
    if is_copy(id) and not is_symbol(payload(packet), payload_bytes(packet) - ID_BYTES):
        return unmarked(context)
    if state.previous != NULL and is_near(state.previous, id.sbn):
        return admit_straggler(context, packet, id)
    if is_flows_first(state) and is_first(<fec_instance *> context.instance, id):
        return believe(context, packet, id, first_of(id), False)
    return doubt(context, packet, id)


cdef inline bint is_apart(const l45_context *context) noexcept nogil:
    cdef const fec_instance *fec = <const fec_instance *> context.instance
    return fec.repair_port_be and context.flow.local_port_be == fec.repair_port_be


cdef l45_verdict unmarked(l45_context *context) noexcept nogil:
    """Many in a row: what was taken for a numbering was none, or the peer has stopped."""
    cdef fec_state *state = <fec_state *> context.state
    count(context, UNMARKED, 1)
    state.strangers += 1
    if state.strangers >= MOST_STRANGERS and state.heard == A_NUMBERING:
        state.heard = NOTHING
        end_blocks(context)
    return L45_DROP if (<fec_instance *> context.instance).drop_unmarked else L45_PASS


cdef l45_verdict corrupt(l45_context *context, l45_packet *packet, fec_id id) noexcept nogil:
    """Its id may be wrong too, so nothing is learned from it. The kernel drops a source; it may yet be recovered."""
    count(context, CORRUPT, 1)
    if not is_source(id):
        count(context, REPAIRS_ARRIVED, 1)
        return L45_DROP
    remove_back(packet, ID_BYTES)
    return L45_REWRITTEN


cdef inline bint is_copy(fec_id id) noexcept nogil:
    """Whether it is the repair of a single datagram, and so its symbol once more: one can tell whether it is sound.
    (A DNS query for an address ends in just such an id.)"""
    return id.k == 1 and not is_source(id)


cdef inline bint is_flows_first(const fec_state *state) noexcept nogil:
    """Behind others, ours or not, one alone is not believed: an id is 28 bits that noise may hit upon."""
    return state.heard == NOTHING and state.doubtful == NULL and state.strangers == 0


cdef inline bint is_first(const fec_instance *fec, fec_id id) noexcept nogil:
    return behind_first(id.sbn) < FIRST_BLOCKS and (is_source(id) and id.k == fec.k or is_copy(id))


cdef inline uint32_t first_of(fec_id id) noexcept nogil:
    return id.sbn - behind_first(id.sbn)


cdef bint follows(fec_id first, fec_id second) noexcept nogil:
    """Whether two datagrams in a row have ids as one sender gives them, in whatever order they came."""
    cdef int32_t apart = sbn_ahead(second.sbn, first.sbn)
    if apart == 0:
        return first.esi != second.esi and (first.k == second.k or not is_source(first) or not is_source(second))
    return -CLOSE_BLOCKS <= apart <= CLOSE_BLOCKS and first.k == second.k and is_source(first) and is_source(second)


cdef l45_verdict believe(l45_context *context, l45_packet *packet, fec_id id, uint32_t first_sbn,
                         bint owned) noexcept nogil:
    """Takes up the numbering of a datagram that begins at first_sbn, or shortly behind it."""
    cdef fec_state *state = <fec_state *> context.state
    if state.heard == A_NUMBERING:
        count(context, RESTARTS, 1)
        end_blocks(context)
        swap_windows(state)
    if state.window == NULL:
        state.window = <fec_window *> context.host.take(context, sizeof(fec_window))
    if state.window == NULL:
        state.heard = NOTHING
        if is_source(id):
            state.doubtful_id = id  # so that the next one follows it
        count(context, NO_MEMORY, 1)
        return bare(context, packet, id)
    state.heard = A_NUMBERING
    state.doubtful_id.k = 0
    state.doubts = 0
    begin_at(state.window, first_sbn, first_of(id))
    order_begin(context, first_sbn)
    return admit(context, packet, id, owned)


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
    """A datagram that may be the beginning of a numbering, or the proof of the one before it."""
    cdef fec_state *state = <fec_state *> context.state
    cdef fec_id before = state.doubtful_id
    cdef l45_packet *held = state.doubtful
    if id_valid(before) and follows(before, id):
        state.doubtful = NULL
        return believe_both(context, held, before, packet, id)
    dismiss(context)
    state.doubtful_id = id
    if state.doubts < MOST_DOUBTS:
        state.doubtful = context.host.hold(context, packet)
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


cdef l45_verdict stale(l45_context *context) noexcept nogil:
    count(context, STALE, 1)
    return L45_DROP


cdef void dismiss(l45_context *context) noexcept nogil:
    """Nothing came that fits to the one that is held. It may be the only one of a peer that began anew."""
    cdef fec_state *state = <fec_state *> context.state
    cdef l45_packet *held = state.doubtful
    if held == NULL:
        return
    state.doubtful = NULL
    state.doubts += 1
    if state.heard == NOTHING:
        release(context, held, unmarked(context))
    elif is_first(<fec_instance *> context.instance, state.doubtful_id) \
            and first_of(state.doubtful_id) != state.window.first:
        release(context, held, bare(context, held, state.doubtful_id))
    else:
        release(context, held, stale(context))


cdef uint64_t receive_due(l45_context *context) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    if state.doubtful != NULL and state.doubtful_until_ns <= context.now_ns:
        dismiss(context)
    return min(min(blocks_due(context), order_due(context)),
               min(report_due(context), state.doubtful_until_ns if state.doubtful != NULL else <uint64_t> L45_NEVER))


cdef void receive_end(l45_context *context) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    dismiss(context)
    order_end(context)
    if state.window != NULL:
        end_blocks(context)
        context.host.give(context, state.window)
        context.host.give(context, state.previous)
        state.window = state.previous = NULL
