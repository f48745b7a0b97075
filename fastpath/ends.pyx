"""See ends.pxd."""

from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport L45_EGRESS, L45_INGRESS, l45_packet
from layer45.fastpath.flow cimport flow_seek
from layer45.fastpath.match cimport l45_match, matches
from layer45.fastpath.packet cimport PROTOCOL_TCP
from layer45.fastpath.pool cimport HEAD_ROOM_BYTES, ORIGIN_QUEUED, POOL_BUFFER_BYTES, l45_carrier
from layer45.fastpath.timer cimport wheel_next_ns, wheel_start
from layer45.fastpath.worker cimport worker_advance, worker_close_flows, worker_process

cdef uint64_t STEP_NS = 60 * <uint64_t> 1000000000  # flows are found idle no later than this


cdef int ends_open(l45_end *near, l45_end *far) noexcept nogil:
    near.slot = far.slot = <uint8_t *> malloc(POOL_BUFFER_BYTES)
    near.other, far.other = far, near
    return 0 if near.slot != NULL else -1


cdef void ends_forget(l45_end *near) noexcept nogil:
    free(near.slot)
    near.slot = NULL


# --- packets ----------------------------------------------------------------------------------------------------------

cdef l45_end *ends_choose(l45_end *near, const l45_match *match, l45_packet *packet) noexcept nogil:
    cdef uint8_t direction = packet.direction
    cdef bint sent, received
    if near.other == NULL or packet.protocol != PROTOCOL_TCP:
        return near if matches(match, packet) else NULL
    packet.direction = L45_INGRESS
    received = matches(match, packet)
    packet.direction = L45_EGRESS
    sent = matches(match, packet)
    if sent and received:
        sent = _is_first(near, packet)
    packet.direction = direction
    if not sent and not received:
        return NULL
    return near if sent == (direction == L45_EGRESS) else near.other


cdef bint _is_first(const l45_end *near, const l45_packet *packet) noexcept nogil:
    """Where the policy is for both hosts, who begins a connection is the near end: whether that is its sender."""
    return flow_seek(&near.worker.flows, packet) != NULL or flow_seek(&near.other.worker.flows, packet) == NULL


cdef void end_tell(const l45_end *end, const l45_packet *packet) noexcept nogil:
    cdef l45_carrier copy
    cdef size_t count = packet.tail - packet.data
    if end.other == NULL or packet.protocol != PROTOCOL_TCP:
        return
    memset(&copy, 0, sizeof(copy))
    copy.queue_id = COPY_ID
    copy.packet.head = end.slot
    copy.packet.data = end.slot + HEAD_ROOM_BYTES
    copy.packet.tail = copy.packet.data + count
    copy.packet.end = end.slot + POOL_BUFFER_BYTES
    copy.packet.class_id = packet.class_id
    copy.packet.time_ns = packet.time_ns
    copy.packet.origin = ORIGIN_QUEUED
    copy.packet.direction = L45_INGRESS if packet.direction == L45_EGRESS else L45_EGRESS
    memcpy(copy.packet.data, packet.data, count)
    worker_process(end.other.worker, &copy)


# --- time -------------------------------------------------------------------------------------------------------------

cdef void ends_start(l45_end *near, uint64_t now_ns) noexcept nogil:
    wheel_start(&near.worker.wheel, now_ns)
    if near.other != NULL:
        wheel_start(&near.other.worker.wheel, now_ns)


cdef uint64_t ends_next_ns(const l45_end *near) noexcept nogil:
    cdef uint64_t next_ns = wheel_next_ns(&near.worker.wheel)
    return next_ns if near.other == NULL else min(next_ns, wheel_next_ns(&near.other.worker.wheel))


cdef void ends_advance(l45_end *near, uint64_t now_ns) noexcept nogil:
    while near.other != NULL and ends_next_ns(near) < now_ns:
        _advance(near, max(ends_next_ns(near), near.worker.now_ns))
    _advance(near, now_ns)


cdef inline void _advance(l45_end *near, uint64_t now_ns) noexcept nogil:
    worker_advance(near.worker, now_ns)
    if near.other != NULL:
        worker_advance(near.other.worker, now_ns)


cdef void ends_stride(l45_end *near, uint64_t now_ns) noexcept nogil:
    while now_ns > near.worker.now_ns + STEP_NS and _live(near):
        ends_advance(near, near.worker.now_ns + STEP_NS)
    if now_ns > near.worker.now_ns:
        ends_advance(near, now_ns)


cdef inline bint _live(const l45_end *near) noexcept nogil:
    return near.worker.flows.live != 0 or near.other != NULL and near.other.worker.flows.live != 0


cdef void ends_close_flows(l45_end *near) noexcept nogil:
    cdef l45_end *far = near.other
    if far != NULL:
        near.other = far.other = NULL
        worker_close_flows(far.worker)
    worker_close_flows(near.worker)
