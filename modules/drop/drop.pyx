"""drop: packets chosen by content, length, count or rate vanish. How the predicates combine: README.md."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_DROP, L45_ERROR, L45_OPS_CAPSULE, L45_PASS, l45_context, l45_ops, l45_packet,
    l45_param, l45_verdict,
)
from layer45.fastpath.params cimport choice_is, param_named
from layer45.fastpath.selection cimport l45_selection, selected, selection_by, whole_payload_bytes

cdef extern from * nogil:
    """
    #define relaxed_load(at) __atomic_load_n((at), __ATOMIC_RELAXED)
    #define relaxed_add(at, value) __atomic_fetch_add((at), (value), __ATOMIC_RELAXED)
    #define relaxed_swap(at, expected, value) \\
        __atomic_compare_exchange_n((at), (expected), (value), 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)
    """
    int64_t relaxed_load(int64_t *at)
    int64_t relaxed_add(int64_t *at, int64_t value)
    bint relaxed_swap(int64_t *at, int64_t *expected, int64_t value)

cdef enum:                      # counters, as in module.toml
    SELECTED, DROPPED, DROPPED_EVERY, DROPPED_RATE, UNREADABLE

cdef struct rate:               # GCRA; 0 ns per unit: no limit
    double ns_per_unit
    int64_t burst_ns

cdef struct buckets:            # of one direction: when each will be full again, in ns of the worker's clock
    int64_t packets_ns
    int64_t bytes_ns

cdef struct drop_instance:
    buckets shared[2]           # scope = policy: touched by all workers, so only through the atomics above
    rate packets
    rate bytes
    l45_selection selection
    uint32_t every
    bint per_policy
    bint limited                # by any rate

cdef struct drop_state:
    buckets own[2]
    uint32_t seen[2]            # selected packets since the last that `every` dropped


cdef bint take(int64_t *full_at_ns, int64_t now_ns, int64_t cost_ns, int64_t burst_ns) noexcept nogil:
    """One bucket, lock free. False: not enough in it, nothing taken."""
    cdef int64_t known_ns = relaxed_load(full_at_ns)
    cdef int64_t next_ns
    while True:
        next_ns = max(known_ns, now_ns) + cost_ns
        if next_ns - now_ns > burst_ns:
            return False
        if relaxed_swap(full_at_ns, &known_ns, next_ns):
            return True


cdef bint within_rates(drop_instance *drop, buckets *of, uint32_t count, int64_t now_ns) noexcept nogil:
    """Takes a packet and its bytes, or neither."""
    cdef int64_t packet_ns = <int64_t> drop.packets.ns_per_unit
    cdef int64_t bytes_ns = <int64_t> (count * drop.bytes.ns_per_unit)
    if packet_ns and not take(&of.packets_ns, now_ns, packet_ns, drop.packets.burst_ns):
        return False
    if bytes_ns and not take(&of.bytes_ns, now_ns, bytes_ns, drop.bytes.burst_ns):
        if packet_ns:
            relaxed_add(&of.packets_ns, -packet_ns)
        return False
    return True


cdef l45_verdict judge(l45_context *context, l45_packet *packet) noexcept nogil:
    """Egress and ingress: select, then thin out what is selected."""
    cdef drop_instance *drop = <drop_instance *> context.instance
    cdef drop_state *state = <drop_state *> context.state
    cdef uint32_t way = packet.direction & 1
    cdef buckets *of = &drop.shared[way] if drop.per_policy else &state.own[way]
    cdef int chosen = selected(&drop.selection, packet)
    if chosen < 0:
        context.counters[UNREADABLE] += 1
        return L45_ERROR
    if not chosen:
        return L45_PASS
    context.counters[SELECTED] += 1
    if drop.every:
        state.seen[way] += 1
        if state.seen[way] == drop.every:
            state.seen[way] = 0
            context.counters[DROPPED_EVERY] += 1
            context.counters[DROPPED] += 1
            return L45_DROP
    if drop.limited:
        if within_rates(drop, of, whole_payload_bytes(packet), <int64_t> context.now_ns):
            return L45_PASS
        context.counters[DROPPED_RATE] += 1
    elif drop.every:
        return L45_PASS
    context.counters[DROPPED] += 1
    return L45_DROP


cdef rate rate_of(double per_s, double burst) noexcept nogil:
    """Bounded to 2^60 ns, so that no sum of times overflows."""
    cdef rate made
    made.ns_per_unit = min(1e9 / per_s, 1e13) if per_s > 0 else 0
    made.burst_ns = <int64_t> min(burst * made.ns_per_unit, 1152921504606846976.0)
    return made


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef drop_instance *drop = <drop_instance *> instance
    drop.selection = selection_by(param_named(params, count, b"prefix"), param_named(params, count, b"length"),
                                  param_named(params, count, b"invert"))
    drop.every = <uint32_t> param_named(params, count, b"every").integer
    drop.packets = rate_of(param_named(params, count, b"rate_packets_per_s").number,
                           param_named(params, count, b"burst_packets").number)
    drop.bytes = rate_of(param_named(params, count, b"rate_bytes_per_s").number,
                         param_named(params, count, b"burst_bytes").number)
    drop.limited = drop.packets.ns_per_unit > 0 or drop.bytes.ns_per_unit > 0
    drop.per_policy = choice_is(param_named(params, count, b"scope"), b"policy")
    return 0


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(drop_instance)
OPS.flow_state_bytes = sizeof(drop_state)
OPS.configure = configure
OPS.egress = judge
OPS.ingress = judge
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
