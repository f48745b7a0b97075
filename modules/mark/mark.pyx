"""mark: writes the differentiated services code point of packets chosen by content or length. See README.md."""

from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport uint8_t
from libc.string cimport memset

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_ERROR, L45_OPS_CAPSULE, L45_PASS, L45_REWRITTEN, l45_context, l45_ops, l45_packet, l45_param,
    l45_verdict,
)
from layer45.fastpath.packet cimport set_dscp
from layer45.fastpath.params cimport param_named
from layer45.fastpath.selection cimport l45_selection, selected, selection_by

cdef enum:                      # counters, as in module.toml
    SELECTED, MARKED

cdef struct mark_instance:
    l45_selection selection
    uint8_t dscp


cdef l45_verdict judge(l45_context *context, l45_packet *packet) noexcept nogil:
    """Egress and ingress. An error is what whole packets, as declared, never come to."""
    cdef mark_instance *mark = <mark_instance *> context.instance
    cdef int chosen = selected(&mark.selection, packet), changed
    if chosen <= 0:
        return L45_PASS if chosen == 0 else L45_ERROR
    changed = set_dscp(packet, mark.dscp)
    if changed < 0:
        return L45_ERROR
    context.counters[SELECTED] += 1
    context.counters[MARKED] += changed
    return L45_REWRITTEN if changed else L45_PASS


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    cdef mark_instance *mark = <mark_instance *> instance
    mark.selection = selection_by(param_named(params, count, b"prefix"), param_named(params, count, b"length"),
                                  param_named(params, count, b"invert"))
    mark.dscp = <uint8_t> param_named(params, count, b"dscp").integer
    return 0


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.instance_bytes = sizeof(mark_instance)
OPS.configure = configure
OPS.egress = judge
OPS.ingress = judge
ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
