"""The devices that packets leave by, and their MTUs."""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    MTU_DEVICES = 8

cdef struct l45_device:
    uint32_t ifindex
    uint32_t mtu
    uint64_t until_ns

cdef struct l45_devices:
    l45_device known[MTU_DEVICES]

# A device's MTU, asked for by any socket at most once a second; 0: it has none, or is gone.
cdef uint32_t device_mtu(l45_devices *devices, int fd, uint32_t ifindex, uint64_t now_ns) noexcept nogil
