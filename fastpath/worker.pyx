"""Packets through chains: parse, flow, chain, verdict.

A packet's way: worker_process -> flow_of -> _run -> _settle. That of a clone or a held packet: owned.pyx. One thread
drives a worker; only `published`, `current` and the counters are looked at by others.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_DROP, L45_EDITED, L45_EGRESS, L45_ERROR, L45_GSO, L45_HOLD, L45_INGRESS, L45_PASS, L45_REWRITTEN,
    L45_TRUNCATED, l45_context, l45_packet, l45_verdict,
)
from layer45.fastpath.agree cimport agree_begins_anew, agree_is_brief
from layer45.fastpath.arena cimport arena_end, arena_start
from layer45.fastpath.chain cimport (
    CHAIN_BEGUN_SENT, CHAIN_EGRESS_BYTES, CHAIN_EGRESS_PACKETS, TRANSPORT_TCP, TRANSPORT_UDP, ClassTable, l45_chain,
    l45_class_table,
)
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport *
from layer45.fastpath.failure cimport failed, flow_refused, go_round, goes_round, refused
from layer45.fastpath.flow cimport (
    AGES_BRIEF, AGES_TCP, PHASE_NONE, flow_idle, flow_oldest, flow_set_ages, flow_touch, flows_end, flows_start,
    l45_entry,
)
from layer45.fastpath.flow_life cimport enter, flow_again, flow_chain, flow_close, flow_of, flow_tick
from layer45.fastpath.flow_view cimport flow_view
from layer45.fastpath.icmp cimport icmp_back
from layer45.fastpath.known cimport known_leave, known_start
from layer45.fastpath.leave cimport leave_is_done, leave_look
from layer45.fastpath.owned cimport (
    TIMER_OWNED, count_verdict, host_start, owned_go_on, random64, template_of,
)
from layer45.fastpath.packet cimport (
    PARSE_FRAGMENT, PARSE_MALFORMED, PARSE_OTHER_PROTOCOL, PARSE_SHORT, PARSED, PROTOCOL_TCP, SMALLEST_IPV6_MTU,
    allow_fragments, parse, parse_result, payload_bytes, seal,
)
from layer45.fastpath.pool cimport (
    ORIGIN_QUEUED, POOL_BUFFER_BYTES, gone, l45_carrier, l45_owned, pool_end, pool_start, serial_of,
)
from layer45.fastpath.segment cimport segment_begin, segment_failed, segment_settle, segment_stage
from layer45.fastpath.template cimport template_keep
from layer45.fastpath.timer cimport l45_timer, wheel_pop, wheel_start

from layer45.fastpath.counters import NAMES

cdef extern from *:
    """
    #define l45_load(pointer) __atomic_load_n(pointer, __ATOMIC_ACQUIRE)
    #define l45_store(pointer, value) __atomic_store_n(pointer, value, __ATOMIC_RELEASE)
    """
    l45_class_table *load_table "l45_load"(l45_class_table **) nogil
    void store_table "l45_store"(l45_class_table **, l45_class_table *) nogil

cdef enum:
    DONT_FRAGMENT = 0x40  # in byte 6 of an IPv4 header


cdef int worker_start(l45_worker *worker, uint32_t index, uint32_t max_flows, uint32_t max_held,
                      size_t memory_bytes, uint64_t seed, uint64_t udp_idle_ns, uint64_t tcp_idle_ns) noexcept nogil:
    """0, or -1 when there is no memory."""
    memset(worker, 0, sizeof(l45_worker))
    host_start(&worker.host)
    worker.conntrack.fd = -1
    worker.run = _run
    worker.settle = _settle
    worker.index = index
    worker.random_state = seed
    worker.identification = <uint32_t> random64(worker)
    wheel_start(&worker.wheel, 0)
    if flows_start(&worker.flows, max_flows, random64(worker), udp_idle_ns, tcp_idle_ns) != 0:
        return -1
    if arena_start(&worker.arena, memory_bytes) != 0:
        return -1
    worker.piece = <uint8_t *> malloc(POOL_BUFFER_BYTES)
    if worker.piece == NULL:
        return -1
    return pool_start(&worker.pool, max_held)


cdef void worker_end(l45_worker *worker) noexcept nogil:
    """Frees everything; flows must be closed."""
    flows_end(&worker.flows)
    pool_end(&worker.pool)
    arena_end(&worker.arena)
    free(worker.piece)
    worker.piece = NULL


cdef void worker_rest(l45_worker *worker) noexcept nogil:
    cdef l45_class_table *published = load_table(&worker.published)
    if published != worker.current:
        store_table(&worker.current, published)


cdef void worker_advance(l45_worker *worker, uint64_t now_ns) noexcept nogil:
    cdef l45_timer *timer
    cdef l45_entry *entry
    while True:
        timer = wheel_pop(&worker.wheel, now_ns)
        if timer == NULL:
            break
        if timer.deadline_ns > worker.now_ns:
            worker.now_ns = timer.deadline_ns
        if timer.kind == TIMER_OWNED:
            owned_go_on(worker, <l45_owned *> timer.owner)
        else:
            flow_tick(worker, <l45_entry *> timer.owner, timer)
    if now_ns > worker.now_ns:
        worker.now_ns = now_ns
    while True:
        entry = flow_idle(&worker.flows, worker.now_ns)
        if entry == NULL:
            return
        flow_close(worker, entry, COUNT_FLOWS_IDLE)


cdef void worker_close_flows(l45_worker *worker) noexcept nogil:
    cdef l45_entry *entry = flow_oldest(&worker.flows)
    known_leave(&worker.known)
    while entry != NULL:
        flow_close(worker, entry, COUNT_FLOWS_CLOSED)
        entry = flow_oldest(&worker.flows)


# --- a packet's way -----------------------------------------------------------------------------------------------

cdef l45_verdict worker_process(l45_worker *worker, l45_carrier *carrier) noexcept nogil:
    cdef l45_verdict verdict
    if not carrier.packet.wire_bytes:
        carrier.packet.wire_bytes = <uint32_t> (carrier.packet.tail - carrier.packet.data)
    worker.counters[COUNT_RECEIVED] += 1
    worker.counters[COUNT_RECEIVED_BYTES] += carrier.packet.wire_bytes
    verdict = _process(worker, carrier)
    if verdict != L45_HOLD:
        count_verdict(worker, verdict)
    return verdict


cdef l45_verdict _process(l45_worker *worker, l45_carrier *carrier) noexcept nogil:
    cdef l45_packet *packet = &carrier.packet
    cdef l45_class_table *table = worker.current
    cdef l45_chain *chain
    cdef l45_entry *entry
    cdef parse_result result
    chain = NULL if table == NULL or packet.class_id >= table.limit else table.chains[packet.class_id]
    result = parse(packet)
    if chain == NULL and result == PARSED:
        chain = flow_chain(worker, packet)
    if chain == NULL:
        worker.counters[COUNT_NO_CLASS] += 1
        return L45_PASS
    if result != PARSED:
        if result == PARSE_OTHER_PROTOCOL and chain.negotiates and packet.direction == L45_INGRESS \
                and icmp_back(worker, packet) == L45_REWRITTEN:
            worker.counters[COUNT_ICMP_ERRORS] += 1
            return L45_REWRITTEN
        worker.counters[_refusal(result)] += 1
        return L45_PASS
    if not chain.transports & (TRANSPORT_TCP if packet.protocol == PROTOCOL_TCP else TRANSPORT_UDP):
        worker.counters[COUNT_OTHER_PROTOCOL] += 1
        return L45_PASS
    if chain.disabled and goes_round(worker, chain, carrier):
        return go_round(worker, chain, packet)
    if packet.flags & L45_TRUNCATED and chain.whole_payload and not (chain.negotiates and is_tcp(packet)):
        worker.counters[COUNT_TRUNCATED] += 1
        return failed(worker, chain)
    entry = flow_of(worker, chain, packet)
    if entry != NULL and entry.phase != PHASE_NONE and agree_begins_anew(entry, carrier):
        entry = flow_again(worker, chain, entry, packet)
    if entry != NULL and entry.some_done:
        entry = leave_look(worker, chain, entry, packet)
    if entry == NULL:
        return flow_refused(worker, chain, packet)
    _count_flow(worker, entry, packet)
    if entry.phase != PHASE_NONE:
        return _outcome(worker, carrier, entry, _connected(worker, carrier, entry))
    if packet.direction == L45_EGRESS and entry.chain.template_offset:
        template_keep(template_of(entry), carrier)
    return _outcome(worker, carrier, entry, _run(worker, carrier, entry, _first(entry.chain, packet.direction)))


cdef inline bint is_tcp(const l45_packet *packet) noexcept nogil:
    return packet.protocol == PROTOCOL_TCP


cdef l45_verdict _connected(l45_worker *worker, l45_carrier *carrier, l45_entry *entry) noexcept nogil:
    cdef l45_verdict verdict = segment_begin(worker, entry, carrier)
    if verdict == L45_PASS:
        verdict = _run(worker, carrier, entry, _first(entry.chain, carrier.packet.direction))
    flow_set_ages(&worker.flows, entry, AGES_BRIEF if agree_is_brief(entry) else AGES_TCP)
    return verdict


cdef inline int _refusal(parse_result result) noexcept nogil:
    if result == PARSE_SHORT:
        return COUNT_SHORT
    if result == PARSE_MALFORMED:
        return COUNT_MALFORMED
    if result == PARSE_FRAGMENT:
        return COUNT_FRAGMENTS
    if result == PARSE_OTHER_PROTOCOL:
        return COUNT_OTHER_PROTOCOL
    return COUNT_TOO_MANY_HEADERS


cdef inline l45_verdict _outcome(l45_worker *worker, l45_carrier *carrier, l45_entry *entry,
                                 l45_verdict verdict) noexcept nogil:
    """The queued packet's verdict. Whether it was taken decides, whatever the module said."""
    if carrier.packet.origin != ORIGIN_QUEUED:
        return L45_HOLD
    return _settle(worker, carrier, entry, verdict)


cdef inline void _count_flow(l45_worker *worker, l45_entry *entry, l45_packet *packet) noexcept nogil:
    cdef uint64_t *counters = entry.chain.counters[worker.index]
    flow_touch(&worker.flows, entry, worker.now_ns)
    entry.packets[packet.direction] += 1
    entry.bytes[packet.direction] += packet.wire_bytes
    counters[CHAIN_EGRESS_PACKETS + packet.direction] += 1
    counters[CHAIN_EGRESS_BYTES + packet.direction] += packet.wire_bytes
    if packet.direction == L45_EGRESS:
        counters[CHAIN_BEGUN_SENT] += not entry.came
        packet.sequence = <uint32_t> (entry.packets[L45_EGRESS] - 1)


cdef inline int64_t _first(const l45_chain *chain, uint8_t direction) noexcept nogil:
    return 0 if direction == L45_EGRESS else <int64_t> chain.count - 1


cdef l45_verdict _run(l45_worker *worker, l45_carrier *carrier, l45_entry *entry, int64_t at) noexcept nogil:
    """The rest of the chain from instance at: PASS, DROP, HOLD or ERROR (counted)."""
    cdef l45_packet *packet = &carrier.packet
    cdef l45_chain *chain = entry.chain
    cdef l45_context context
    cdef l45_verdict verdict
    cdef int64_t step = 1 if packet.direction == L45_EGRESS else -1
    cdef uint32_t serial = serial_of(carrier)
    cdef bint numbers_only = chain.disabled and entry.phase != PHASE_NONE  # for what closes the connection
    if numbers_only and payload_bytes(packet):
        return L45_ERROR
    while 0 <= at < <int64_t> chain.count:
        if chain.instances[at].stream != NULL and is_tcp(packet):
            if segment_stage(worker, entry, at, packet) == L45_DROP:
                return L45_DROP
        elif chain.instances[at].runs[packet.direction] and not numbers_only and not leave_is_done(entry, at):
            if entry.closing and at < entry.closed and chain.instances[at].ops.flow_close != NULL:
                return L45_ERROR
            enter(&context, worker, entry, at)
            if packet.direction == L45_EGRESS:
                verdict = chain.instances[at].ops.egress(&context, packet)
            else:
                verdict = chain.instances[at].ops.ingress(&context, packet)
            if verdict != L45_PASS and (verdict != L45_REWRITTEN or chain.looks_only):
                return refused(worker, entry, at, carrier, serial, verdict)
            if gone(carrier, serial):
                return L45_HOLD
        at += step
    return L45_PASS


cdef l45_verdict _settle(l45_worker *worker, l45_carrier *carrier, l45_entry *entry,
                         l45_verdict verdict) noexcept nogil:
    """What the chain said as what is to be done, with the packet ready to leave."""
    cdef l45_chain *chain = entry.chain
    cdef uint32_t before_bytes = carrier.packet.wire_bytes
    if verdict == L45_ERROR:
        return L45_DROP if segment_failed(worker, entry) else failed(worker, chain)
    if verdict == L45_DROP:
        return L45_DROP
    if not carrier.packet.flags & L45_EDITED:
        return L45_PASS
    if chain.looks_only:
        return failed(worker, chain)
    if entry.phase != PHASE_NONE:
        return segment_settle(worker, entry, carrier)
    seal(&carrier.packet)
    if carrier.mtu and carrier.packet.wire_bytes > before_bytes:
        return _grown(worker, chain, carrier, before_bytes)
    return L45_REWRITTEN


cdef l45_verdict _grown(l45_worker *worker, l45_chain *chain, l45_carrier *carrier,
                        uint32_t before_bytes) noexcept nogil:
    """A packet that outgrew the device's MTU may be cut (RFC 791), or its sender is told (RFC 1191, 8201).

    Any other that grew may be cut too: its sender may know a path narrower than the device, and fill it. So may one
    that no message makes shorter, as an IPv6 sender need not heed an MTU below 1280. One that a module made goes for
    packets whose sender has been told, or soon will be: it is not cut where those are not, and nobody is told.
    """
    cdef l45_packet *packet = &carrier.packet
    cdef uint32_t growth_bytes = packet.wire_bytes - before_bytes
    cdef bint outgrew = before_bytes <= carrier.mtu < packet.wire_bytes
    cdef bint forbids = packet.ip_version == 4 and packet.data[6] & DONT_FRAGMENT != 0
    if packet.direction != L45_EGRESS or packet.flags & L45_GSO:
        return L45_REWRITTEN
    if outgrew and chain.signal_mtu and before_bytes == packet.payload_offset:
        worker.counters[COUNT_TOO_BIG] += 1
        return L45_DROP
    if outgrew and chain.signal_mtu and (forbids or packet.ip_version == 6 and before_bytes > SMALLEST_IPV6_MTU):
        worker.counters[COUNT_TOO_BIG] += 1
        worker.sink.too_big(worker.sink.self, carrier, carrier.mtu - min(carrier.mtu, growth_bytes + chain.emits_bytes))
        return L45_DROP
    if forbids:
        worker.identification += 1
        worker.counters[COUNT_FRAGMENTATION_ALLOWED] += 1
        allow_fragments(packet, <uint16_t> worker.identification)
    return L45_REWRITTEN


# --- the control plane's view -----------------------------------------------------------------------------------------

cdef class Worker:
    """A worker's memory: flow table, timers, packet pool, counters. A QueueLoop or a Replay drives it.

    max_flows: flows kept before the oldest is evicted. max_held: packets that modules may hold or delay at once
    (64 KiB of address space each, touched as used). memory_bytes: what modules may borrow at once, for example for
    the symbols of open blocks; a power of two, or the next one is taken; touched as used too. seed: of its random
    numbers and hash; the same seed and input give the same output. known_fd: of the map of known connections, which
    must outlive the worker; -1: there is none.
    """

    def __cinit__(self, uint32_t index=0, *, uint32_t max_flows=65536, uint32_t max_held=1024,
                  size_t memory_bytes=32 << 20, uint64_t seed=1, double udp_idle_s=180, double tcp_idle_s=7440,
                  int known_fd=-1):
        self.tables = []
        self.retired = []
        if worker_start(&self.worker, index, max(1, max_flows), max_held, memory_bytes, seed,
                        <uint64_t> (udp_idle_s * 1e9), <uint64_t> (tcp_idle_s * 1e9)) != 0:
            raise MemoryError(
                f"no memory for {max_flows} flows, {max_held} held packets and {memory_bytes} bytes for modules")
        known_start(&self.worker.known, known_fd, &self.worker.counters[COUNT_KNOWN_ERRORS])

    def __dealloc__(self):
        worker_end(&self.worker)

    def publish(self, ClassTable table) -> None:
        """Gives the worker its chains; it takes them up before its next batch."""
        self.tables.append(table)
        store_table(&self.worker.published, &table.table)

    def reclaim(self) -> bool:
        """Forgets old tables once the worker has left them, and their chains once no flow uses them; True: all gone."""
        cdef ClassTable newest
        if not self.tables:
            return True
        newest = self.tables[len(self.tables) - 1]
        if load_table(&self.worker.current) == &newest.table:
            for table in self.tables[:len(self.tables) - 1]:
                self.retired.extend(chain for chain in table.chains if chain not in newest.chains)
            del self.tables[:len(self.tables) - 1]
        self.retired = [chain for chain in self.retired if chain.flows]
        return len(self.tables) == 1 and not self.retired

    @property
    def settled(self) -> bool:
        """Whether the worker uses the newest table."""
        return load_table(&self.worker.published) == load_table(&self.worker.current)

    def counters(self) -> dict[str, int]:
        """The engine's counters by name; see layer45.fastpath.counters.COUNTERS."""
        return {name: self.worker.counters[<int> at] for at, name in enumerate(NAMES)}

    @property
    def live(self) -> dict[str, int]:
        """Live objects: flows, packets out of the pool, armed timers, pieces of memory that modules have."""
        return {
            "flows": self.worker.flows.live, "owned": self.worker.pool.live, "timers": self.worker.wheel.armed,
            "memory": self.worker.arena.live,
        }

    def close_flows(self) -> None:
        """Ends every flow; only while no thread drives the worker."""
        worker_close_flows(&self.worker)

    def flows(self, uint32_t limit=1000) -> list[dict]:
        """Up to limit flows as dicts, while packets flow: see flow_view. Call it from one thread at a time."""
        chains = {*self.retired, *[chain for table in self.tables for chain in table.chains]}
        return flow_view(&self.worker, chains, limit)
