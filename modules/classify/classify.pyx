"""classify: which application protocol a flow speaks, told from the first bytes of its payloads. It only looks.

What is told by which bytes: segment.pyx (TCP), datagram.pyx (UDP), text.pyx and dns.pyx (both).
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_OPS_CAPSULE, L45_PASS, L45_TRUNCATED, l45_context, l45_ops, l45_packet, l45_param,
    l45_verdict,
)
from layer45.fastpath.packet cimport PROTOCOL_TCP, payload, payload_bytes
from layer45.fastpath.params cimport param_named
from layer45.modules.classify.datagram cimport protocol_of_datagram, rtp_seen
from layer45.modules.classify.protocols cimport BYTES, COUNTERS, OTHER, PACKETS, UNDECIDED, UNKNOWN
from layer45.modules.classify.segment cimport protocol_of_segment

cdef enum:
    FLAGS_AT = 13               # in a TCP header
    SYN = 2
    SYN_OR_ACK = 18

cdef struct classify_instance:
    uint32_t packets
    bint bypass

cdef struct classify_state:
    uint64_t counted[COUNTERS]  # of this flow
    rtp_seen rtp[2]             # by direction
    uint32_t looked[2]          # packets with payload
    uint32_t decided            # a protocol, or OTHER; UNKNOWN: not yet


cdef inline void add(l45_context *context, uint32_t counter, uint64_t count) noexcept nogil:
    """To the policy's and the flow's."""
    context.counters[counter] += count
    (<classify_state *> context.state).counted[counter] += count


cdef inline uint32_t whole_payload_bytes(const l45_packet *packet) noexcept nogil:
    """As long as the payload was, also where our buffer holds less of it."""
    if packet.flags & L45_TRUNCATED:
        return packet.wire_bytes - packet.payload_offset
    return payload_bytes(packet)


cdef inline bint opens_connection(const l45_packet *packet) noexcept nogil:
    return packet.protocol == PROTOCOL_TCP \
        and packet.data[packet.l4_offset + FLAGS_AT] & SYN_OR_ACK == SYN


cdef void begin(classify_state *state) noexcept nogil:
    """A connection with the addresses and ports of one that was decided."""
    memset(state.looked, 0, sizeof(state.looked))
    state.decided = UNKNOWN


cdef void settle(l45_context *context, uint32_t protocol) noexcept nogil:
    """Where others in the chain want the flow still, its packets come, and are let alone."""
    (<classify_state *> context.state).decided = protocol
    add(context, UNDECIDED, <uint64_t> -1)
    add(context, protocol, 1)
    if (<classify_instance *> context.instance).bypass:
        context.host.done(context)


cdef void decide(l45_context *context, const l45_packet *packet, uint32_t whole) noexcept nogil:
    cdef classify_state *state = <classify_state *> context.state
    cdef uint32_t way = packet.direction & 1
    cdef bint opens = not (state.looked[0] or state.looked[1])
    cdef uint32_t found
    if packet.protocol == PROTOCOL_TCP:
        found = protocol_of_segment(payload(packet), payload_bytes(packet), opens)
    else:
        found = protocol_of_datagram(payload(packet), payload_bytes(packet), whole, &state.rtp[way])
    if opens:
        add(context, UNDECIDED, 1)
    state.looked[way] += 1
    if found == UNKNOWN and state.looked[way] >= (<classify_instance *> context.instance).packets:
        found = OTHER
    if found != UNKNOWN:
        settle(context, found)


cdef l45_verdict look(l45_context *context, l45_packet *packet) noexcept nogil:
    """Egress and ingress."""
    cdef classify_state *state = <classify_state *> context.state
    cdef uint32_t whole = whole_payload_bytes(packet)
    if state.decided != UNKNOWN and opens_connection(packet):
        begin(state)
    if state.decided != UNKNOWN and (<classify_instance *> context.instance).bypass:
        return L45_PASS
    add(context, PACKETS, 1)
    add(context, BYTES, whole)
    if state.decided == UNKNOWN and whole:
        decide(context, packet, whole)
    return L45_PASS


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef classify_instance *classify = <classify_instance *> instance
    classify.packets = <uint32_t> param_named(params, count, b"packets").integer
    classify.bypass = param_named(params, count, b"bypass").integer != 0
    return 0


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(classify_instance)
OPS.flow_state_bytes = sizeof(classify_state)
OPS.flow_counters = COUNTERS
OPS.configure = configure
OPS.egress = look
OPS.ingress = look
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
