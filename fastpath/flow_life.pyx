"""See flow_life.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from layer45.fastpath.abi cimport L45_EGRESS, L45_INGRESS, l45_context, l45_flow_key, l45_packet
from layer45.fastpath.chain cimport FAULT_FLOW, l45_chain
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport (
    COUNT_CONNECTIONS_LOST, COUNT_CONNECTIONS_UNSEEN, COUNT_FLOWS_CLOSED, COUNT_FLOWS_EVICTED, COUNT_FLOWS_IDLE,
    COUNT_FLOWS_OPENED, COUNT_MODULE_ERRORS,
)
from layer45.fastpath.flow cimport (
    AGES_BRIEF, AGES_TCP, PHASE_ALONE, PHASE_CUSTOMIZED, PHASE_LOST, PHASE_NONE, PHASE_OPENING, connection_of,
    flow_find, flow_hash, flow_insert, flow_key, flow_remove, flow_seek, flow_set_ages, flow_victim, l45_entry,
    l45_flow_table, load_block, stages_of, store_block,
)
from layer45.fastpath.known cimport KNOWN_LEFT, known_add, known_is_customized, known_remove
from layer45.fastpath.owned cimport TIMER_INSTANCE, owned_abandon
from layer45.fastpath.packet cimport PROTOCOL_TCP
from layer45.fastpath.stream cimport NO_FIN, l45_stage, l45_syn
from layer45.fastpath.tcp cimport TCP_SYN, tcp_flags
from layer45.fastpath.timer cimport l45_timer, wheel_disarm

cdef extern from *:
    """
    #define l45_add(pointer, value) __atomic_add_fetch(pointer, value, __ATOMIC_RELEASE)
    """
    int64_t add_flows "l45_add"(int64_t *, int64_t) nogil


cdef l45_entry *flow_of(l45_worker *worker, l45_chain *chain, const l45_packet *packet) noexcept nogil:
    cdef l45_flow_key key
    cdef uint64_t hash
    cdef l45_entry *entry
    flow_key(packet, &key)
    hash = flow_hash(&worker.flows, &key)
    entry = flow_find(&worker.flows, &key, hash)
    if entry != NULL:
        if entry.chain == chain or entry.chain.sticky or entry.phase != PHASE_NONE:
            return entry
        flow_close(worker, entry, COUNT_FLOWS_CLOSED)
    entry = _open(worker, chain, &key, hash)
    if entry == NULL:
        worker.counters[COUNT_MODULE_ERRORS] += 1
        return NULL
    entry.came = packet.direction == L45_INGRESS
    if chain.negotiates and packet.protocol == PROTOCOL_TCP \
            and not _connect(worker, entry, tcp_flags(packet) & TCP_SYN):
        flow_close(worker, entry, COUNT_FLOWS_CLOSED)
        return NULL
    return entry


cdef l45_chain *flow_chain(l45_worker *worker, const l45_packet *packet) noexcept nogil:
    cdef l45_entry *entry = flow_seek(&worker.flows, packet)
    return entry.chain if entry != NULL and entry.phase != PHASE_NONE else NULL


cdef l45_entry *flow_again(l45_worker *worker, l45_chain *chain, l45_entry *entry,
                           const l45_packet *packet) noexcept nogil:
    cdef l45_syn peer = connection_of(entry).peer
    flow_close(worker, entry, COUNT_FLOWS_CLOSED)
    entry = flow_of(worker, chain, packet)
    if entry != NULL and entry.phase != PHASE_NONE:
        connection_of(entry).peer = peer
    return entry


cdef bint _connect(l45_worker *worker, l45_entry *entry, bint begins) noexcept nogil:
    """The state of a TCP connection that needs the peer's agreement. Without room in the map, it goes on alone.

    False: which it must not.
    """
    cdef l45_stage *stages = stages_of(entry)
    cdef uint32_t at
    for at in range(entry.chain.stages):
        stages[at].ways[L45_EGRESS].fin = NO_FIN
        stages[at].ways[L45_INGRESS].fin = NO_FIN
    worker.counters[COUNT_CONNECTIONS_UNSEEN] += not begins
    if begins and entry.chain.stages and known_add(&worker.known, &entry.key) != 0:
        if entry.chain.strict or entry.chain.fail_closed:
            return False
        begins = False
    entry.phase = PHASE_OPENING if begins else PHASE_ALONE
    if not begins and entry.chain.stages and known_is_customized(&worker.known, &entry.key):
        entry.phase = PHASE_LOST
    flow_set_ages(&worker.flows, entry, AGES_BRIEF)
    return True


cdef l45_entry *_open(l45_worker *worker, l45_chain *chain, const l45_flow_key *key, uint64_t hash) noexcept nogil:
    cdef l45_entry *entry
    cdef uint8_t *block = <uint8_t *> calloc(1, chain.flow_bytes + 1)
    cdef uint32_t at
    if block == NULL:
        return NULL
    entry = flow_insert(&worker.flows, key, hash, worker.now_ns)
    if entry == NULL:
        flow_close(worker, flow_victim(&worker.flows), COUNT_FLOWS_EVICTED)
        entry = flow_insert(&worker.flows, key, hash, worker.now_ns)
    entry.chain = chain
    entry.timers = <l45_timer *> block
    store_block(&entry.state, block)
    add_flows(&chain.flows, 1)
    worker.counters[COUNT_FLOWS_OPENED] += 1
    for at in range(chain.count):
        entry.timers[at].kind = TIMER_INSTANCE
        entry.timers[at].owner = entry
    return entry if _open_modules(worker, entry) else NULL


cdef bint _open_modules(l45_worker *worker, l45_entry *entry) noexcept nogil:
    cdef l45_context context
    cdef uint32_t at
    for at in range(entry.chain.count):
        if entry.chain.instances[at].ops.flow_open != NULL:
            enter(&context, worker, entry, at)
            if entry.chain.instances[at].ops.flow_open(&context) != 0:
                entry.chain.counters[worker.index][entry.chain.instances[at].fault_offset + FAULT_FLOW] += 1
                _close_modules(worker, entry, at)
                _forget(worker, entry, COUNT_FLOWS_CLOSED)
                return False
    return True


cdef void flow_close(l45_worker *worker, l45_entry *entry, int why) noexcept nogil:
    _close_modules(worker, entry, entry.chain.count)
    _forget(worker, entry, why)


cdef void _close_modules(l45_worker *worker, l45_entry *entry, uint32_t count) noexcept nogil:
    cdef l45_context context
    cdef uint32_t at
    entry.closing = 1
    for at in range(count):
        if entry.chain.instances[at].ops.flow_close != NULL:
            enter(&context, worker, entry, at)
            entry.chain.instances[at].ops.flow_close(&context)
        entry.closed = at + 1


cdef void _forget(l45_worker *worker, l45_entry *entry, int why) noexcept nogil:
    cdef l45_chain *chain = entry.chain
    cdef uint32_t at
    owned_abandon(worker, entry)
    if entry.phase != PHASE_NONE and chain.stages:
        _forget_connection(worker, entry, why)
    for at in range(chain.count):
        wheel_disarm(&worker.wheel, &entry.timers[at])
    worker.counters[why] += 1
    _block_end(&worker.flows, entry)
    flow_remove(&worker.flows, entry)
    add_flows(&chain.flows, -1)  # last: an open flow's chain lives


cdef void _forget_connection(l45_worker *worker, l45_entry *entry, int why) noexcept nogil:
    """One that may go on stays in the map: what comes of it must not pass, and the control plane closes its socket."""
    cdef bint lives = entry.phase == PHASE_CUSTOMIZED and entry.ages == AGES_TCP \
        and (why == COUNT_FLOWS_IDLE or why == COUNT_FLOWS_EVICTED or worker.known.fd == KNOWN_LEFT)
    worker.counters[COUNT_CONNECTIONS_LOST] += lives
    if not lives and entry.phase != PHASE_LOST:
        known_remove(&worker.known, &entry.key)


cdef void _block_end(l45_flow_table *flows, l45_entry *entry) noexcept nogil:
    """A block that is read now stays until the next one is; the reader has left the one before it by then."""
    cdef uint8_t *ended = entry.state
    cdef uint8_t *before = flows.leftover
    entry.timers = NULL
    store_block(&entry.state, NULL)
    if load_block(&flows.watched) == ended:
        flows.leftover = ended
        ended = before
    free(ended)


cdef void flow_tick(l45_worker *worker, l45_entry *entry, l45_timer *timer) noexcept nogil:
    cdef l45_context context
    cdef uint32_t at = <uint32_t> (timer - entry.timers)
    if entry.chain.instances[at].ops.tick != NULL:
        enter(&context, worker, entry, at)
        entry.chain.instances[at].ops.tick(&context)
