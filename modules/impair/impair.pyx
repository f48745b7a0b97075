"""impair: a bad network. A packet's way through it: README.md; the functions follow that order."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_DROP, L45_EDITED, L45_HOLD, L45_OPS_CAPSULE, L45_PARTIAL, L45_PASS, L45_REWRITTEN, L45_SUMMED,
    l45_context, l45_ops, l45_packet, l45_param, l45_verdict,
)
from layer45.fastpath.checksum cimport sum_bytes
from layer45.fastpath.packet cimport begin_change, begin_edit, editable, end_change, payload, payload_bytes
from layer45.fastpath.params cimport choice_is, param_named
from layer45.fastpath.splitmix cimport mixed, numbered

cdef enum:                      # counters, as in module.toml
    LOST, LOST_BURST, DUPLICATED, CORRUPTED, DELAYED, NOT_HELD, REORDERED, QUEUE_FULL, NOT_COPIED

cdef enum question:             # each has its own random number of a packet, whatever else is asked
    RANDOM_LOSS = 1, STATE_CHANGE, STATE_LOSS, COPY, COPY_DICE, CORRUPT, CORRUPT_WHERE, REORDER, JITTER

cdef struct impair_instance:
    uint64_t seed
    uint64_t loss, duplicate, corrupt, reorder  # chances in 2^-53
    uint64_t change[2]          # of the state: good, bad
    uint64_t state_loss[2]
    uint32_t gap
    int64_t delay_ns, jitter_ns
    uint64_t queue_ns
    double ns_per_byte          # 0: no limit
    bint keep_order, mend

cdef struct one_way:            # a flow's state in one direction
    uint64_t packets
    uint64_t free_ns            # when the link has sent all that it took
    uint64_t last_ns            # when the last delayed packet leaves
    uint32_t since_reordered, bad

cdef struct impair_state:
    one_way ways[2]


cdef bint happens(uint64_t dice, question what, uint64_t chance) noexcept nogil:
    return numbered(dice, what) >> 11 < chance


cdef bint is_lost(l45_context *context, one_way *way, uint64_t dice) noexcept nogil:
    """The state that a packet finds decides, and moves on with every packet."""
    cdef impair_instance *impair = <impair_instance *> context.instance
    cdef uint32_t found = way.bad
    if happens(dice, STATE_CHANGE, impair.change[found]):
        way.bad = 1 - found
    if not happens(dice, RANDOM_LOSS, impair.loss):
        if not happens(dice, STATE_LOSS, impair.state_loss[found]):
            return False
        context.counters[LOST_BURST] += 1
    context.counters[LOST] += 1
    return True


cdef void flip(l45_packet *packet, uint64_t bit, bint mend) noexcept nogil:
    """Without mend, the sum goes on to claim what was there. One that the device was to compute is computed first."""
    cdef uint32_t at = <uint32_t> (bit >> 3)
    if mend:
        begin_change(packet, at, 1)
    elif packet.flags & L45_PARTIAL:
        packet.payload_sum = sum_bytes(payload(packet), payload_bytes(packet))
        packet.flags = (packet.flags & ~L45_PARTIAL) | L45_SUMMED
    begin_edit(packet)
    payload(packet)[at] ^= <uint8_t> (1 << (bit & 7))
    if mend:
        end_change(packet, at, 1)


cdef void corrupt(l45_context *context, l45_packet *packet, uint64_t dice) noexcept nogil:
    cdef impair_instance *impair = <impair_instance *> context.instance
    cdef uint64_t bits = <uint64_t> payload_bytes(packet) * 8
    if bits and editable(packet) and happens(dice, CORRUPT, impair.corrupt):
        flip(packet, numbered(dice, CORRUPT_WHERE) % bits, impair.mend)
        context.counters[CORRUPTED] += 1


cdef bint take_link(impair_instance *impair, one_way *way, l45_packet *packet, uint64_t *at_ns) noexcept nogil:
    """Moves the time to when the last bit is on the link. False: it would wait too long."""
    cdef uint64_t start_ns = max(at_ns[0], way.free_ns)
    if start_ns - at_ns[0] > impair.queue_ns:
        return False
    at_ns[0] = way.free_ns = start_ns + <uint64_t> ((packet.tail - packet.data) * impair.ns_per_byte)
    return True


cdef uint64_t delayed(l45_context *context, one_way *way, uint64_t at_ns, uint64_t dice) noexcept nogil:
    cdef impair_instance *impair = <impair_instance *> context.instance
    cdef int64_t delay_ns = impair.delay_ns
    if way.since_reordered >= impair.gap - 1 and happens(dice, REORDER, impair.reorder):
        way.since_reordered = 0
        context.counters[REORDERED] += 1
        return at_ns
    way.since_reordered = min(way.since_reordered + 1, impair.gap)
    if impair.jitter_ns:
        delay_ns += <int64_t> (numbered(dice, JITTER) % <uint64_t> (2 * impair.jitter_ns + 1)) - impair.jitter_ns
    at_ns += max(delay_ns, 0)
    if impair.keep_order:
        at_ns = way.last_ns = max(at_ns, way.last_ns)
    return at_ns


cdef bint crosses(l45_context *context, l45_packet *packet, one_way *way, uint64_t dice,
                  uint64_t *at_ns) noexcept nogil:
    """What becomes of a packet, or of a copy, that was not lost; and when it goes on. False: it does not."""
    corrupt(context, packet, dice)
    if not take_link(<impair_instance *> context.instance, way, packet, at_ns):
        context.counters[QUEUE_FULL] += 1
        return False
    at_ns[0] = delayed(context, way, at_ns[0], dice)
    context.counters[DELAYED] += at_ns[0] > context.now_ns
    return True


cdef void send_copy(l45_context *context, l45_packet *packet, one_way *way, uint64_t dice) noexcept nogil:
    cdef l45_packet *copy = context.host.clone(context, packet)
    cdef uint64_t at_ns = context.now_ns
    if copy == NULL:
        context.counters[NOT_COPIED] += 1
        return
    context.counters[DUPLICATED] += 1
    if crosses(context, copy, way, dice, &at_ns):
        context.host.resume(context, copy, at_ns)
    else:
        context.host.discard(context, copy)


cdef l45_verdict send(l45_context *context, l45_packet *packet, one_way *way, uint64_t dice) noexcept nogil:
    cdef l45_packet *held
    cdef uint64_t at_ns = context.now_ns
    if not crosses(context, packet, way, dice, &at_ns):
        return L45_DROP
    if at_ns <= context.now_ns:
        return L45_REWRITTEN if packet.flags & L45_EDITED else L45_PASS
    held = context.host.hold(context, packet)
    if held == NULL:
        context.counters[NOT_HELD] += 1
        return L45_DROP
    context.host.resume(context, held, at_ns)
    return L45_HOLD


cdef l45_verdict pass_through(l45_context *context, l45_packet *packet) noexcept nogil:
    """Egress and ingress. One number for each packet, from which all that concerns it is drawn."""
    cdef impair_instance *impair = <impair_instance *> context.instance
    cdef one_way *way = &(<impair_state *> context.state).ways[packet.direction & 1]
    cdef uint64_t dice
    way.packets += 1
    dice = numbered(mixed(2 * impair.seed + packet.direction), way.packets)
    if impair.seed == 0:
        dice = context.host.random(context)
    if is_lost(context, way, dice):
        return L45_DROP
    if happens(dice, COPY, impair.duplicate):
        send_copy(context, packet, way, numbered(dice, COPY_DICE))
    return send(context, packet, way, dice)


cdef uint64_t chance_of(l45_param percent) noexcept nogil:
    return <uint64_t> (percent.number / 100 * 9007199254740992.0)


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef impair_instance *impair = <impair_instance *> instance
    cdef double rate = param_named(params, count, b"rate_kbit_per_s").number
    impair.seed = <uint64_t> param_named(params, count, b"seed").integer
    impair.loss = chance_of(param_named(params, count, b"loss_percent"))
    impair.change[0] = chance_of(param_named(params, count, b"burst_enter_percent"))
    impair.change[1] = chance_of(param_named(params, count, b"burst_leave_percent"))
    impair.state_loss[0] = chance_of(param_named(params, count, b"good_loss_percent"))
    impair.state_loss[1] = chance_of(param_named(params, count, b"burst_loss_percent"))
    impair.duplicate = chance_of(param_named(params, count, b"duplicate_percent"))
    impair.corrupt = chance_of(param_named(params, count, b"corrupt_percent"))
    impair.mend = choice_is(param_named(params, count, b"corrupt_checksum"), b"mend")
    impair.reorder = chance_of(param_named(params, count, b"reorder_percent"))
    impair.gap = <uint32_t> param_named(params, count, b"reorder_gap").integer
    impair.delay_ns = <int64_t> (param_named(params, count, b"delay_ms").number * 1e6)
    impair.jitter_ns = <int64_t> (param_named(params, count, b"jitter_ms").number * 1e6)
    impair.keep_order = param_named(params, count, b"keep_order").integer != 0
    impair.ns_per_byte = 8e6 / rate if rate > 0 else 0
    impair.queue_ns = <uint64_t> (param_named(params, count, b"queue_ms").number * 1e6)
    return 0


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(impair_instance)
OPS.flow_state_bytes = sizeof(impair_state)
OPS.configure = configure
OPS.egress = pass_through
OPS.ingress = pass_through
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
