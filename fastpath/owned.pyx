"""See owned.pxd. A packet's way: take -> (a timer) -> owned_go_on -> the rest of the chain -> the sink."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_DROP, L45_EDITED, L45_EGRESS, L45_ERROR, L45_NEVER, L45_PARTIAL, L45_TRUNCATED,
    l45_context, l45_flow_key, l45_host, l45_packet, l45_verdict,
)
from layer45.fastpath.arena cimport arena_give, arena_take
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport (
    COUNT_CLONES, COUNT_CLONES_ENDED, COUNT_HELD, COUNT_MEMORY_EMPTY, COUNT_NOT_OWNED, COUNT_POOL_EMPTY,
)
from layer45.fastpath.flow cimport flow_find, flow_hash, l45_entry
from layer45.fastpath.flow_life cimport enter
from layer45.fastpath.leave cimport leave_done
from layer45.fastpath.packet cimport PROTOCOL_UDP, allow_fragments, identify
from layer45.fastpath.pool cimport (
    ORIGIN_CLONE, ORIGIN_HELD, ORIGIN_QUEUED, ORIGIN_TAKEN, l45_carrier, l45_owned, pool_copy, pool_return,
)
from layer45.fastpath.splitmix cimport next_of
from layer45.fastpath.template cimport template_apply
from layer45.fastpath.timer cimport TICK_NS, l45_timer, wheel_arm, wheel_disarm


cdef void host_start(l45_host *host) noexcept nogil:
    host.abi_version = L45_ABI_VERSION
    host.struct_bytes = sizeof(l45_host)
    host.clone = _host_clone
    host.hold = _host_hold
    host.resume = _host_resume
    host.discard = _host_discard
    host.arm = _host_arm
    host.random = _host_random
    host.make = _host_make
    host.take = _host_take
    host.give = _host_give
    host.enter = _host_enter
    host.clock_ns = _host_clock_ns
    host.done = leave_done


cdef l45_owned *_take(l45_context *context, const l45_carrier *source, uint8_t origin) noexcept nogil:
    cdef l45_worker *worker = <l45_worker *> context.worker
    cdef l45_owned *owned = pool_copy(&worker.pool, source)
    if owned == NULL:
        worker.counters[COUNT_POOL_EMPTY] += 1
        return NULL
    owned.carrier.packet.origin = origin
    owned.timer.next = NULL
    owned.timer.kind = TIMER_OWNED
    owned.timer.owner = owned
    owned.flow = context.entry
    _own(owned, context.index)
    return owned


cdef void _own(l45_owned *owned, uint32_t index) noexcept nogil:
    cdef l45_entry *entry = <l45_entry *> owned.flow
    owned.index = index
    owned.taken = 1
    owned.serial += 1
    owned.previous = NULL
    owned.next = <l45_owned *> entry.owned
    if owned.next != NULL:
        owned.next.previous = owned
    entry.owned = owned


cdef void _release(l45_worker *worker, l45_owned *owned) noexcept nogil:
    """Takes the packet from its module."""
    wheel_disarm(&worker.wheel, &owned.timer)
    if owned.next != NULL:
        owned.next.previous = owned.previous
    if owned.previous != NULL:
        owned.previous.next = owned.next
    else:
        (<l45_entry *> owned.flow).owned = owned.next
    owned.taken = 0


cdef void owned_go_on(l45_worker *worker, l45_owned *owned) noexcept nogil:
    cdef l45_entry *entry = <l45_entry *> owned.flow
    cdef uint32_t serial = owned.serial
    cdef int64_t step = 1 if owned.carrier.packet.direction == L45_EGRESS else -1
    cdef l45_verdict verdict
    _release(worker, owned)
    verdict = worker.run(worker, &owned.carrier, entry, <int64_t> owned.index + step)
    if owned.serial != serial:
        return
    if verdict == L45_ERROR and owned.carrier.packet.origin == ORIGIN_CLONE:
        verdict = L45_DROP
    _finish(worker, owned, worker.settle(worker, &owned.carrier, entry, verdict))


cdef void _finish(l45_worker *worker, l45_owned *owned, l45_verdict verdict) noexcept nogil:
    if owned.carrier.packet.origin == ORIGIN_HELD:
        worker.counters[COUNT_HELD] -= 1
        count_verdict(worker, verdict)
        worker.sink.finish(worker.sink.self, &owned.carrier, verdict)
    else:
        worker.counters[COUNT_CLONES_ENDED] += 1
        if verdict != L45_DROP:
            worker.sink.finish(worker.sink.self, &owned.carrier, verdict)
    pool_return(&worker.pool, owned)


cdef void owned_abandon(l45_worker *worker, l45_entry *entry) noexcept nogil:
    cdef l45_owned *owned
    while entry.owned != NULL:
        owned = <l45_owned *> entry.owned
        _release(worker, owned)
        if owned.carrier.packet.origin == ORIGIN_HELD:
            _finish(worker, owned, worker.settle(worker, &owned.carrier, entry, L45_ERROR))
        else:
            _finish(worker, owned, L45_DROP)


# --- host services: what a module calls -------------------------------------------------------------------------------

cdef l45_packet *_host_clone(l45_context *context, const l45_packet *packet) noexcept nogil:
    cdef l45_worker *worker = <l45_worker *> context.worker
    cdef l45_owned *owned
    if packet.flags & L45_TRUNCATED or _looks_only(context):
        return NULL
    owned = _take(context, <const l45_carrier *> packet, ORIGIN_CLONE)
    if owned == NULL:
        return NULL
    if packet.flags & L45_PARTIAL:
        owned.carrier.packet.flags |= L45_EDITED  # no device will make its checksum: seal does
    worker.counters[COUNT_CLONES] += 1
    worker.identification += 1
    identify(&owned.carrier.packet, <uint16_t> worker.identification)
    return &owned.carrier.packet


cdef l45_packet *_host_make(l45_context *context) noexcept nogil:
    cdef l45_worker *worker = <l45_worker *> context.worker
    cdef l45_entry *entry = <l45_entry *> context.entry
    cdef l45_carrier carrier
    cdef l45_owned *owned
    if not entry.chain.template_offset or context.flow.protocol != PROTOCOL_UDP:
        return NULL
    template_apply(template_of(entry), context.flow, &carrier)
    owned = _take(context, &carrier, ORIGIN_CLONE)
    if owned == NULL:
        return NULL
    owned.carrier.packet.time_ns = worker.now_ns
    worker.counters[COUNT_CLONES] += 1
    worker.identification += 1
    identify(&owned.carrier.packet, <uint16_t> worker.identification)
    allow_fragments(&owned.carrier.packet, <uint16_t> worker.identification)
    return &owned.carrier.packet


cdef l45_packet *_host_hold(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef l45_worker *worker = <l45_worker *> context.worker
    cdef l45_owned *owned
    if _looks_only(context):
        return NULL
    if packet.origin == ORIGIN_TAKEN or packet.origin != ORIGIN_QUEUED and (<l45_owned *> packet).taken:
        worker.counters[COUNT_NOT_OWNED] += 1
        return NULL
    if packet.origin != ORIGIN_QUEUED:
        (<l45_owned *> packet).flow = context.entry  # which host.enter may have changed
        _own(<l45_owned *> packet, context.index)
        return packet
    owned = _take(context, <const l45_carrier *> packet, ORIGIN_HELD)
    if owned == NULL:
        return NULL
    packet.origin = ORIGIN_TAKEN
    worker.counters[COUNT_HELD] += 1
    return &owned.carrier.packet


cdef bint _looks_only(l45_context *context) noexcept nogil:
    """What such a chain's modules take is refused: it may be a copy, of a packet that has gone on."""
    if not (<l45_entry *> context.entry).chain.looks_only:
        return False
    (<l45_worker *> context.worker).counters[COUNT_NOT_OWNED] += 1
    return True


cdef bint _is_owned(l45_worker *worker, const l45_packet *packet) noexcept nogil:
    """Whether a module may end its ownership: it has some, and has not ended it before."""
    if packet.origin > ORIGIN_TAKEN and (<const l45_owned *> packet).taken:
        return True
    worker.counters[COUNT_NOT_OWNED] += 1
    return False


cdef void _host_resume(l45_context *context, l45_packet *packet, uint64_t when_ns) noexcept nogil:
    cdef l45_worker *worker = <l45_worker *> context.worker
    cdef l45_owned *owned = <l45_owned *> packet
    if not _is_owned(worker, packet):
        return
    if when_ns > worker.now_ns:
        wheel_arm(&worker.wheel, &owned.timer, when_ns)
    else:
        owned_go_on(worker, owned)


cdef void _host_discard(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef l45_worker *worker = <l45_worker *> context.worker
    if _is_owned(worker, packet):
        _release(worker, <l45_owned *> packet)
        _finish(worker, <l45_owned *> packet, L45_DROP)


cdef void _host_arm(l45_context *context, uint64_t when_ns) noexcept nogil:
    cdef l45_worker *worker = <l45_worker *> context.worker
    cdef l45_timer *timer = &(<l45_entry *> context.entry).timers[context.index]
    if when_ns == L45_NEVER:
        wheel_disarm(&worker.wheel, timer)
    else:
        wheel_arm(&worker.wheel, timer, max(when_ns, worker.now_ns + TICK_NS))


cdef uint64_t _host_random(l45_context *context) noexcept nogil:
    return random64(<l45_worker *> context.worker)


cdef void *_host_take(l45_context *context, size_t count) noexcept nogil:
    cdef l45_worker *worker = <l45_worker *> context.worker
    cdef void *memory = arena_take(&worker.arena, count)
    worker.counters[COUNT_MEMORY_EMPTY] += memory == NULL
    return memory


cdef void _host_give(l45_context *context, void *memory) noexcept nogil:
    arena_give(&(<l45_worker *> context.worker).arena, memory)


cdef int _host_enter(l45_context *context, uint16_t local_port_be, l45_context *other) noexcept nogil:
    cdef l45_worker *worker = <l45_worker *> context.worker
    cdef l45_flow_key key = context.flow[0]
    cdef l45_entry *entry
    key.local_port_be = local_port_be
    entry = flow_find(&worker.flows, &key, flow_hash(&worker.flows, &key))
    if entry == NULL or entry.chain != (<l45_entry *> context.entry).chain:
        return False
    enter(other, worker, entry, context.index)
    return True


cdef uint64_t _host_clock_ns(l45_context *context) noexcept nogil:
    return (<l45_worker *> context.worker).now_ns


cdef uint64_t random64(l45_worker *worker) noexcept nogil:
    return next_of(&worker.random_state)
