"""See device.pxd."""

from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    """
    #include <net/if.h>
    #include <sys/ioctl.h>
    static int l45_device_mtu(int fd, unsigned int ifindex) {
        struct ifreq request;
        request.ifr_ifindex = ifindex;  /* not if_indextoname: it opens a socket, which the filter refuses */
        if (ioctl(fd, SIOCGIFNAME, &request) < 0 || ioctl(fd, SIOCGIFMTU, &request) < 0)
            return 0;
        return request.ifr_mtu;
    }
    """
    int l45_device_mtu(int fd, unsigned int ifindex) nogil

cdef enum:
    SECOND_NS = 1000000000


cdef uint32_t device_mtu(l45_devices *devices, int fd, uint32_t ifindex, uint64_t now_ns) noexcept nogil:
    cdef l45_device *device = &devices.known[ifindex % MTU_DEVICES]
    if device.ifindex != ifindex or device.until_ns < now_ns:
        device.ifindex = ifindex
        device.mtu = l45_device_mtu(fd, ifindex)
        device.until_ns = now_ns + SECOND_NS
    return device.mtu
