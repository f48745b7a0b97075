"""A compiled module that takes 0.3 s to configure, and then does nothing."""

from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memset
from posix.unistd cimport usleep

from layer45.fastpath.abi cimport (
    L45_ABI_VERSION, L45_OPS_CAPSULE, L45_PASS, l45_context, l45_ops, l45_packet, l45_param, l45_verdict,
)


cdef int configure(void *instance, const l45_param *params, size_t count, char *error,
                   size_t error_bytes) noexcept nogil:
    usleep(300_000)
    return 0


cdef l45_verdict egress(l45_context *context, l45_packet *packet) noexcept nogil:
    return L45_PASS


cdef l45_ops OPS
memset(&OPS, 0, sizeof(OPS))
OPS.abi_version = L45_ABI_VERSION
OPS.struct_bytes = sizeof(OPS)
OPS.configure = configure
OPS.egress = egress

ops = PyCapsule_New(&OPS, L45_OPS_CAPSULE, NULL)
