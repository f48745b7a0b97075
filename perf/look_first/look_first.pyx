"""look_first: counts a flow's first packets, as what decides by them would, and is done with the flow."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_OPS_CAPSULE, L45_PASS, l45_context, l45_ops, l45_packet, l45_param, l45_verdict,
)
from layer45.fastpath.params cimport param_named

cdef enum:                      # counters, as in module.toml
    SEEN, DONE

cdef struct look_first_instance:
    uint64_t packets

cdef struct look_first_state:
    uint64_t seen


cdef l45_verdict look(l45_context *context, l45_packet *packet) noexcept nogil:
    """Egress and ingress."""
    cdef look_first_instance *own = <look_first_instance *> context.instance
    cdef look_first_state *state = <look_first_state *> context.state
    state.seen += 1
    context.counters[SEEN] += 1
    if state.seen >= own.packets and context.host.done(context):
        context.counters[DONE] += 1
    return L45_PASS


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    (<look_first_instance *> instance).packets = <uint64_t> param_named(params, count, b"packets").integer
    return 0


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(look_first_instance)
OPS.flow_state_bytes = sizeof(look_first_state)
OPS.configure = configure
OPS.egress = look
OPS.ingress = look
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
