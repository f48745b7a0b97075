"""See segment.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from layer45.fastpath.abi cimport (
    L45_DROP, L45_EGRESS, L45_ERROR, L45_PASS, L45_REWRITTEN, L45_TRUNCATED, l45_context, l45_packet, l45_verdict,
)
from layer45.fastpath.agree cimport agree
from layer45.fastpath.chain cimport l45_instance
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport COUNT_SEGMENTS_LOST, COUNT_TRUNCATED
from layer45.fastpath.cut cimport cut
from layer45.fastpath.flow cimport PHASE_CUSTOMIZED, PHASE_LOST, connection_of, l45_entry, stages_of
from layer45.fastpath.flow_life cimport enter
from layer45.fastpath.packet cimport seal
from layer45.fastpath.pool cimport l45_carrier
from layer45.fastpath.stream cimport l45_connection, l45_stage, stage_egress, stage_ingress
from layer45.fastpath.tcp cimport TCP_SYN, tcp_flags


cdef l45_verdict segment_begin(l45_worker *worker, l45_entry *entry, l45_carrier *carrier) noexcept nogil:
    if entry.phase == PHASE_LOST and (carrier.packet.flags & L45_TRUNCATED or not tcp_flags(&carrier.packet) & TCP_SYN):
        worker.counters[COUNT_SEGMENTS_LOST] += 1
        return L45_DROP
    if carrier.packet.flags & L45_TRUNCATED and entry.chain.whole_payload:
        worker.counters[COUNT_TRUNCATED] += 1
        return L45_ERROR
    return agree(worker, entry, carrier)


cdef l45_verdict segment_stage(l45_worker *worker, l45_entry *entry, int64_t at, l45_packet *packet) noexcept nogil:
    cdef l45_instance *instance = &entry.chain.instances[at]
    cdef l45_stage *stage
    cdef l45_connection *connection
    cdef uint8_t sender = packet.direction
    cdef l45_context context
    if entry.phase != PHASE_CUSTOMIZED:
        return L45_PASS
    stage = &stages_of(entry)[instance.stage]
    connection = connection_of(entry)
    enter(&context, worker, entry, at)
    context.stream = <uint64_t> connection.first[sender] << 32 | connection.first[1 - sender]
    if packet.direction == L45_EGRESS:
        return stage_egress(&context, instance, connection, stage, packet)
    return stage_ingress(&context, instance, connection, stage, packet)


cdef l45_verdict segment_settle(l45_worker *worker, l45_entry *entry, l45_carrier *carrier) noexcept nogil:
    if cut(worker, carrier, connection_of(entry)) != 0:
        worker.counters[COUNT_SEGMENTS_LOST] += 1
        return L45_DROP
    seal(&carrier.packet)
    return L45_REWRITTEN


cdef bint segment_failed(l45_worker *worker, const l45_entry *entry) noexcept nogil:
    worker.counters[COUNT_SEGMENTS_LOST] += entry.phase == PHASE_CUSTOMIZED
    return entry.phase == PHASE_CUSTOMIZED
