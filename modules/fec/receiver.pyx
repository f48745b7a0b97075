"""A datagram's way in: is its id one of ours? -> admit -> a source goes on, a repair waits or becomes a lost one."""

from libc.stdint cimport uint64_t

from layer45.fastpath.abi cimport (
    L45_DROP, L45_ERROR, L45_NEVER, L45_REWRITTEN, l45_context, l45_packet, l45_verdict,
)
from layer45.fastpath.packet cimport editable, payload, payload_bytes, remove_back, sum_holds
from layer45.modules.fec.admit cimport admit, admit_straggler
from layer45.modules.fec.apart cimport receive_apart
from layer45.modules.fec.block cimport blocks_due
from layer45.modules.fec.doubt cimport (
    MOST_DOUBTS, begins_at, believe, dismiss, doubt, forget, is_copy, is_first, stale, unmarked,
)
from layer45.modules.fec.losses cimport report_due, report_take
from layer45.modules.fec.order cimport order_due
from layer45.modules.fec.report cimport report_is
from layer45.modules.fec.state cimport *
from layer45.modules.fec.window cimport is_near, is_past
from layer45.modules.fec.wire cimport ID_BYTES, fec_id, id_read, id_valid, is_source, is_symbol


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
    if state.window != NULL and is_near(state.window, id.sbn):
        state.heard = A_NUMBERING  # strangers in between end nothing
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
    if is_flows_first(state) and is_first(<fec_instance *> context.instance, packet, id):
        return believe(context, packet, id, begins_at(id), False)
    return doubt(context, packet, id)


cdef inline bint is_apart(const l45_context *context) noexcept nogil:
    cdef const fec_instance *fec = <const fec_instance *> context.instance
    return fec.repair_port_be and context.flow.local_port_be == fec.repair_port_be


cdef inline bint is_flows_first(const fec_state *state) noexcept nogil:
    """Behind others, ours or not, one alone is not believed: an id is 28 bits that noise may hit upon."""
    return state.heard == NOTHING and state.doubtful == NULL and state.strangers == 0


cdef l45_verdict corrupt(l45_context *context, l45_packet *packet, fec_id id) noexcept nogil:
    """Its id may be wrong too, so nothing is learned from it. The kernel drops a source; it may yet be recovered."""
    count(context, CORRUPT, 1)
    if not is_source(id):
        count(context, REPAIRS_ARRIVED, 1)
        return L45_DROP
    remove_back(packet, ID_BYTES)
    return L45_REWRITTEN


cdef uint64_t receive_due(l45_context *context) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    if state.doubtful != NULL and state.doubtful_until_ns <= context.now_ns:
        dismiss(context)
    return min(min(blocks_due(context), order_due(context)),
               min(report_due(context), state.doubtful_until_ns if state.doubtful != NULL else <uint64_t> L45_NEVER))


cdef void receive_end(l45_context *context) noexcept nogil:
    cdef fec_state *state = <fec_state *> context.state
    dismiss(context)
    forget(context)
    context.host.give(context, state.window)
    context.host.give(context, state.previous)
    state.window = state.previous = NULL
