"""Counts of ended blocks -> a report, at most one in report_ms -> the other end's controller (adapt.pyx)."""

from libc.stdint cimport uint32_t, uint64_t

from layer45.fastpath.abi cimport L45_DROP, L45_NEVER, l45_context, l45_packet, l45_verdict
from layer45.fastpath.packet cimport claim_back, payload
from layer45.modules.fec.adapt cimport adapt_report
from layer45.modules.fec.report cimport REPORT_BYTES, REPORT_NUMBERS, fec_report, report_read, report_write
from layer45.modules.fec.state cimport *


cdef void losses_of(l45_context *context, const in_block *block, uint32_t size) noexcept nogil:
    cdef fec_losses *losses = &(<fec_state *> context.state).losses
    cdef uint32_t esi
    if not (<fec_instance *> context.instance).adaptive:
        return
    for esi in range(size):
        if block.symbols[esi] == NULL:
            losses.lost += 1
            losses.runs += esi == 0 or block.symbols[esi - 1] != NULL
    tell(context, losses, size)


cdef void losses_of_all(l45_context *context, uint32_t size) noexcept nogil:
    cdef fec_losses *losses = &(<fec_state *> context.state).losses
    if size and (<fec_instance *> context.instance).adaptive:
        losses.lost += size
        losses.runs += 1
        tell(context, losses, size)


cdef inline void tell(l45_context *context, fec_losses *losses, uint32_t size) noexcept nogil:
    losses.expected += size
    if losses.due_ns == 0:
        losses.due_ns = context.now_ns + (<fec_instance *> context.instance).report_ns
        wake_at(context, losses.due_ns)


cdef uint64_t report_due(l45_context *context) noexcept nogil:
    cdef fec_losses *losses = &(<fec_state *> context.state).losses
    if losses.due_ns == 0:
        return L45_NEVER
    if losses.due_ns > context.now_ns:
        return losses.due_ns
    losses.due_ns = 0
    send_report(context, losses)
    return L45_NEVER


cdef void send_report(l45_context *context, fec_losses *losses) noexcept nogil:
    """A lost one does no harm: the next one says the same, and more."""
    cdef l45_packet *packet = context.host.make(context)
    cdef fec_report report
    if packet == NULL:
        return
    report.number = losses.number
    report.expected, report.lost, report.runs = losses.expected, losses.lost, losses.runs
    losses.number = (losses.number + 1) % REPORT_NUMBERS
    report_write(payload(packet), &report, (<fec_instance *> context.instance).key)
    claim_back(packet, REPORT_BYTES)
    context.host.resume(context, packet, 0)
    count(context, REPORTS_SENT, 1)


cdef l45_verdict report_take(l45_context *context, const l45_packet *packet) noexcept nogil:
    cdef fec_instance *fec = <fec_instance *> context.instance
    cdef fec_state *state = <fec_state *> context.state
    cdef fec_report report
    cdef bint taken = fec.adaptive and report_read(payload(packet), fec.key, &report) and adapt_report(
        &state.adapt, &fec.levels, &report, usual_size(state), state.out.interleave, context.now_ns,
        &state.out.repairs, &state.out.next_interleave)
    count(context, REPORTS_RECEIVED if taken else REPORTS_REFUSED, 1)
    return L45_DROP


cdef inline uint32_t usual_size(const fec_state *state) noexcept nogil:
    """Of the blocks that were sent."""
    cdef uint64_t blocks = state.counters[BLOCKS_FULL] + state.counters[BLOCKS_SHORT]
    return max(<uint32_t> 1, <uint32_t> (state.counters[SOURCES] // max(blocks, <uint64_t> 1)))
