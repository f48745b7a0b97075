"""A module that does at random whatever the ABI allows; with `mischief`, some of what it forbids too."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_DROP, L45_ERROR, L45_HOLD, L45_NEVER, L45_OPS_CAPSULE, L45_PASS, L45_REWRITTEN, l45_context,
    l45_ops, l45_packet, l45_param, l45_verdict,
)
from layer45.fastpath.packet cimport (
    begin_change, end_change, insert_back, insert_front, payload, payload_bytes, remove_back, remove_front,
)
from layer45.fastpath.params cimport param_named

cdef enum:
    KEPT = 6
    DELAY_MASK = (1 << 24) - 1  # 17 ms
    FAR_MASK = (<uint64_t> 1 << 36) - 1

cdef struct chaos_instance:
    bint mischief

cdef struct chaos_state:
    uint64_t calls               # the one counter, by flow
    l45_packet *kept[KEPT]
    uint32_t open                # a canary: 1 between flow_open and flow_close
    uint8_t canary[40]


cdef uint64_t LATE = 0           # calls of egress, ingress or tick outside of an open flow


cdef inline uint32_t dice(l45_context *context, uint32_t sides) noexcept nogil:
    return <uint32_t> (context.host.random(context) % sides)


cdef uint64_t moment(l45_context *context) noexcept nogil:
    """Now, in the past, soon, or far away."""
    cdef uint32_t kind = dice(context, 8)
    if kind == 0:
        return 0
    if kind == 1:
        return context.now_ns
    if kind == 2:
        return context.now_ns + (context.host.random(context) & FAR_MASK)
    return context.now_ns + (context.host.random(context) & DELAY_MASK)


cdef void edit(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef uint8_t bytes[64]
    cdef uint32_t kind = dice(context, 5), count = dice(context, 64)
    cdef uint32_t at
    for at in range(64):
        bytes[at] = <uint8_t> dice(context, 256)
    if kind == 0:
        insert_back(packet, bytes, count)
    elif kind == 1:
        insert_front(packet, bytes, count)
    elif kind == 2:
        remove_back(packet, count)
    elif kind == 3:
        remove_front(packet, count)
    elif payload_bytes(packet):
        at = dice(context, payload_bytes(packet))
        if begin_change(packet, at, 1) == 0:
            payload(packet)[at] ^= bytes[0]
            end_change(packet, at, 1)


cdef l45_packet **free_place(chaos_state *state) noexcept nogil:
    cdef uint32_t at
    for at in range(<uint32_t> KEPT):
        if state.kept[at] == NULL:
            return &state.kept[at]
    return NULL


cdef void let_go(l45_context *context, l45_packet *packet) noexcept nogil:
    """Of an owned packet: resumes or discards it, or keeps it in the flow."""
    cdef l45_packet **place = free_place(<chaos_state *> context.state)
    cdef uint32_t kind = dice(context, 4)
    if dice(context, 3) == 0:
        edit(context, packet)
    if kind == 0 and place != NULL:
        place[0] = packet
    elif kind == 1:
        context.host.discard(context, packet)
    else:
        context.host.resume(context, packet, moment(context))


cdef void stir(l45_context *context, uint32_t most) noexcept nogil:
    """Does something to kept packets."""
    cdef chaos_state *state = <chaos_state *> context.state
    cdef l45_packet *packet
    cdef l45_packet *copy
    cdef uint32_t at
    for at in range(min(most, <uint32_t> KEPT)):
        packet = state.kept[at]
        if packet != NULL and dice(context, 2):
            if dice(context, 4) == 0:
                copy = context.host.clone(context, packet)
                if copy != NULL:
                    let_go(context, copy)
            state.kept[at] = NULL
            let_go(context, packet)


cdef l45_verdict act(l45_context *context, l45_packet *packet) noexcept nogil:
    global LATE
    cdef chaos_instance *chaos = <chaos_instance *> context.instance
    cdef chaos_state *state = <chaos_state *> context.state
    cdef l45_packet *owned
    cdef uint32_t kind = dice(context, 16)
    if state.open != 1:
        LATE += 1
    state.calls += 1
    context.counters[0] += 1
    if dice(context, 4) == 0:
        context.host.arm(context, L45_NEVER if dice(context, 4) == 0 else moment(context))
    if dice(context, 4) == 0:
        stir(context, KEPT)
    if dice(context, 2):
        edit(context, packet)
    if kind < 4:
        for _ in range(dice(context, 4)):
            owned = context.host.clone(context, packet)
            if owned == NULL:
                return L45_ERROR if dice(context, 2) else L45_PASS
            let_go(context, owned)
    elif kind < 9:
        owned = context.host.hold(context, packet)
        if owned == NULL:
            return L45_DROP if dice(context, 2) else L45_PASS
        let_go(context, owned)
        if chaos.mischief and dice(context, 3) == 0:
            if dice(context, 3) == 0 and context.host.hold(context, packet) != NULL:
                return L45_HOLD
            return <l45_verdict> dice(context, 8)
        return L45_HOLD
    elif kind == 9:
        return L45_DROP
    elif kind == 10:
        return L45_ERROR
    elif kind == 11 and chaos.mischief:
        return <l45_verdict> dice(context, 8)
    return L45_REWRITTEN


cdef void tick(l45_context *context) noexcept nogil:
    global LATE
    if (<chaos_state *> context.state).open != 1:
        LATE += 1
    stir(context, KEPT)
    if dice(context, 2):
        context.host.arm(context, moment(context))


cdef int flow_open(l45_context *context) noexcept nogil:
    cdef chaos_state *state = <chaos_state *> context.state
    if dice(context, 16) == 0:
        return -1
    state.open = 1
    memset(state.canary, 0xC5, sizeof(state.canary))
    if dice(context, 4) == 0:
        context.host.arm(context, moment(context))
    return 0


cdef void flow_close(l45_context *context) noexcept nogil:
    """Lets most go; what it forgets, the engine ends."""
    global LATE
    cdef chaos_state *state = <chaos_state *> context.state
    cdef uint32_t at
    for at in range(<uint32_t> sizeof(state.canary)):
        if state.canary[at] != 0xC5:
            LATE += 1
    stir(context, KEPT)
    context.host.arm(context, moment(context))
    state.open = 2


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    (<chaos_instance *> instance).mischief = param_named(params, count, b"mischief").integer != 0
    return 0


def late() -> int:
    """Calls that found a flow closed, or another's memory in their state."""
    return LATE


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(chaos_instance)
OPS.flow_state_bytes = sizeof(chaos_state)
OPS.flow_counters = 1
OPS.configure = configure
OPS.flow_open = flow_open
OPS.flow_close = flow_close
OPS.egress = act
OPS.ingress = act
OPS.tick = tick
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
