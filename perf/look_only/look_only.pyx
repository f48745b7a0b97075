"""look_only: what a monitor reads of a packet, its headers, counted for the flow and for the instance."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_OPS_CAPSULE, L45_PASS, l45_context, l45_ops, l45_packet, l45_param, l45_verdict,
)
from layer45.fastpath.packet cimport PROTOCOL_TCP
from layer45.fastpath.tcp cimport TCP_FIN, TCP_RST, TCP_SYN, tcp_flags

cdef enum:                      # counters, as in module.toml
    SEEN, SEEN_BYTES, OPENING, CLOSING

cdef struct look_only_state:
    uint64_t packets[2]         # by direction
    uint32_t largest_bytes
    uint32_t unused


cdef l45_verdict look(l45_context *context, l45_packet *packet) noexcept nogil:
    """Egress and ingress."""
    cdef look_only_state *state = <look_only_state *> context.state
    cdef uint8_t flags = tcp_flags(packet) if packet.protocol == PROTOCOL_TCP else 0
    state.packets[packet.direction & 1] += 1
    state.largest_bytes = max(state.largest_bytes, packet.wire_bytes)
    context.counters[SEEN] += 1
    context.counters[SEEN_BYTES] += packet.wire_bytes - packet.payload_offset
    context.counters[OPENING] += flags & TCP_SYN != 0
    context.counters[CLOSING] += flags & (TCP_FIN | TCP_RST) != 0
    return L45_PASS


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    return 0


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.flow_state_bytes = sizeof(look_only_state)
OPS.configure = configure
OPS.egress = look
OPS.ingress = look
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
