"""See leave.pxd."""

from libc.stdint cimport uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_context, l45_flow_key, l45_packet
from layer45.fastpath.chain cimport l45_chain
from layer45.fastpath.conntrack cimport conntrack_mark
from layer45.fastpath.core cimport LEAVE_LIMIT, l45_worker
from layer45.fastpath.counters cimport COUNT_FLOWS_CLOSED, COUNT_FLOWS_LEFT, COUNT_LEAVE_ERRORS
from layer45.fastpath.flow cimport AGES_BRIEF, flow_find, flow_hash, flow_set_ages, l45_entry
from layer45.fastpath.flow_life cimport flow_close, flow_of
from layer45.fastpath.packet cimport PROTOCOL_TCP
from layer45.fastpath.tcp cimport TCP_ACK, TCP_SYN, tcp_flags

cdef enum:
    STRAGGLERS_NS = 1000000000  # also how long conntrack is not asked again after it refused


cdef int leave_done(l45_context *context) noexcept nogil:
    cdef l45_worker *worker = <l45_worker *> context.worker
    cdef l45_entry *entry = <l45_entry *> context.entry
    if context.index >= 64 or not entry.chain.lets_go >> context.index & 1:
        return 0
    entry.done |= <uint64_t> 1 << context.index
    entry.some_done = 1
    _ask(worker, entry)
    return 1


cdef void _ask(l45_worker *worker, l45_entry *entry) noexcept nogil:
    """To be told of by the next flush, if all that run are done with it."""
    if entry.done != entry.chain.lets_go or worker.conntrack.fd < 0 or worker.leaving == LEAVE_LIMIT:
        return
    worker.leaving_keys[worker.leaving] = entry.key
    worker.leaving += 1
    entry.asked_ns = worker.now_ns


cdef l45_entry *leave_look(l45_worker *worker, l45_chain *chain, l45_entry *entry,
                           const l45_packet *packet) noexcept nogil:
    cdef bint late = worker.now_ns - entry.asked_ns > STRAGGLERS_NS
    cdef bint begins = packet.protocol == PROTOCOL_TCP and tcp_flags(packet) & (TCP_SYN | TCP_ACK) == TCP_SYN
    if entry.left and (late or begins):
        flow_close(worker, entry, COUNT_FLOWS_CLOSED)
        return flow_of(worker, chain, packet)
    if late:
        _ask(worker, entry)
    return entry


cdef void leave_flush(l45_worker *worker) noexcept nogil:
    cdef const l45_flow_key *key
    cdef l45_entry *entry
    cdef uint32_t at
    for at in range(worker.leaving):
        key = &worker.leaving_keys[at]
        entry = flow_find(&worker.flows, key, flow_hash(&worker.flows, key))
        if entry != NULL:
            _leave(worker, entry)
    worker.leaving = 0


cdef void _leave(l45_worker *worker, l45_entry *entry) noexcept nogil:
    if conntrack_mark(&worker.conntrack, &entry.key) != 0:
        worker.counters[COUNT_LEAVE_ERRORS] += 1
        return
    worker.counters[COUNT_FLOWS_LEFT] += 1
    entry.left = 1
    flow_set_ages(&worker.flows, entry, AGES_BRIEF)
