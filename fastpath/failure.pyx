"""See failure.pxd."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport (
    L45_DROP, L45_EGRESS, L45_ERROR, L45_HOLD, L45_PASS, L45_TRUNCATED, l45_flow_key, l45_packet, l45_verdict,
)
from layer45.fastpath.agree cimport agree_begins_anew
from layer45.fastpath.chain cimport (
    CHAIN_BEGUN_FAILED, CHAIN_BYPASSED, CHAIN_EGRESS_BYTES, CHAIN_EGRESS_FAILED, CHAIN_EGRESS_PACKETS, FAULT_ERROR,
    FAULT_UNSET, l45_chain,
)
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport (
    COUNT_CONNECTIONS_REFUSED, COUNT_DISABLED_DROPPED, COUNT_DISABLED_PASSED, COUNT_FAILED_CLOSED, COUNT_FAILED_OPEN,
    COUNT_FLOWS_CLOSED, COUNT_MODULE_ERRORS, COUNT_UNSET_VERDICTS,
)
from layer45.fastpath.flow cimport PHASE_ALONE, PHASE_NONE, flow_key, flow_seek, l45_entry
from layer45.fastpath.flow_life cimport flow_close
from layer45.fastpath.known cimport known_is_customized
from layer45.fastpath.packet cimport LARGEST_PACKET_BYTES, PROTOCOL_TCP
from layer45.fastpath.pool cimport gone, l45_carrier
from layer45.fastpath.tcp cimport TCP_SYN, tcp_flags


cdef l45_verdict failed(l45_worker *worker, const l45_chain *chain) noexcept nogil:
    if chain.fail_closed:
        worker.counters[COUNT_FAILED_CLOSED] += 1
        return L45_DROP
    worker.counters[COUNT_FAILED_OPEN] += 1
    return L45_PASS


cdef l45_verdict refused(l45_worker *worker, const l45_entry *entry, int64_t at, const l45_carrier *carrier,
                         uint32_t serial, l45_verdict verdict) noexcept nogil:
    cdef const l45_chain *chain = entry.chain
    cdef uint64_t *counters = chain.counters[worker.index]
    cdef bint is_error = verdict == L45_ERROR
    if not chain.looks_only and (verdict == L45_DROP or verdict == L45_HOLD and gone(carrier, serial)):
        return verdict
    worker.counters[COUNT_MODULE_ERRORS if is_error else COUNT_UNSET_VERDICTS] += 1
    if not _too_long(chain, &carrier.packet):
        counters[chain.instances[at].fault_offset + (FAULT_ERROR if is_error else FAULT_UNSET)] += 1
        counters[CHAIN_EGRESS_FAILED + carrier.packet.direction] += 1
        counters[CHAIN_BEGUN_FAILED] += carrier.packet.direction == L45_EGRESS and not entry.came
    return L45_ERROR


cdef l45_verdict flow_refused(l45_worker *worker, l45_chain *chain, const l45_packet *packet) noexcept nogil:
    _count_packet(worker, chain, packet)
    chain.counters[worker.index][CHAIN_EGRESS_FAILED + packet.direction] += 1
    if chain.strict and packet.protocol == PROTOCOL_TCP:
        worker.counters[COUNT_CONNECTIONS_REFUSED] += 1
        return L45_DROP
    return failed(worker, chain)


cdef bint goes_round(l45_worker *worker, const l45_chain *chain, const l45_carrier *carrier) noexcept nogil:
    cdef const l45_packet *packet = &carrier.packet
    cdef l45_entry *entry = flow_seek(&worker.flows, packet)
    if entry == NULL:
        return not (chain.stages and packet.protocol == PROTOCOL_TCP and _is_forgotten(worker, packet))
    if entry.phase != PHASE_NONE and entry.phase != PHASE_ALONE and not agree_begins_anew(entry, carrier):
        return False
    flow_close(worker, entry, COUNT_FLOWS_CLOSED)
    return True


cdef l45_verdict go_round(l45_worker *worker, const l45_chain *chain, const l45_packet *packet) noexcept nogil:
    _count_packet(worker, chain, packet)
    chain.counters[worker.index][CHAIN_BYPASSED] += 1
    worker.counters[COUNT_DISABLED_DROPPED if chain.fail_closed else COUNT_DISABLED_PASSED] += 1
    return L45_DROP if chain.fail_closed else L45_PASS


cdef inline bint _too_long(const l45_chain *chain, const l45_packet *packet) noexcept nogil:
    """For the chain, or for a queue to hand it over whole."""
    if chain.looks_only:
        return False
    return packet.flags & L45_TRUNCATED or packet.wire_bytes + chain.growth_bytes > LARGEST_PACKET_BYTES


cdef inline void _count_packet(l45_worker *worker, const l45_chain *chain, const l45_packet *packet) noexcept nogil:
    """One that has no flow to be counted in."""
    cdef uint64_t *counters = chain.counters[worker.index]
    counters[CHAIN_EGRESS_PACKETS + packet.direction] += 1
    counters[CHAIN_EGRESS_BYTES + packet.direction] += packet.wire_bytes


cdef bint _is_forgotten(l45_worker *worker, const l45_packet *packet) noexcept nogil:
    """A segment of a connection that was customized, and that we know nothing of any more."""
    cdef l45_flow_key key
    flow_key(packet, &key)
    return not tcp_flags(packet) & TCP_SYN and known_is_customized(&worker.known, &key)
