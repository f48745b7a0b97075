"""tally: counts packets and bytes for each flow too, and changes nothing; for tests of the counters."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_OPS_CAPSULE, L45_PASS, l45_context, l45_ops, l45_packet, l45_param, l45_verdict,
)
from layer45.fastpath.packet cimport payload, payload_bytes

cdef enum:                      # counters, as in module.toml
    SEEN, SEEN_BYTES, FLOW_COUNTERS, STRANGE = FLOW_COUNTERS

cdef struct tally_state:
    uint64_t counters[FLOW_COUNTERS]
    uint64_t more[3]


cdef l45_verdict both(l45_context *context, l45_packet *packet) noexcept nogil:
    cdef tally_state *state = <tally_state *> context.state
    state.counters[SEEN] += 1
    state.counters[SEEN_BYTES] += payload_bytes(packet)
    context.counters[SEEN] += 1
    context.counters[SEEN_BYTES] += payload_bytes(packet)
    context.counters[STRANGE] += payload_bytes(packet) > 0 and payload(packet)[0] == b'?'
    return L45_PASS


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    return 0


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.flow_state_bytes = sizeof(tally_state)
OPS.flow_counters = FLOW_COUNTERS
OPS.configure = configure
OPS.egress = both
OPS.ingress = both
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
