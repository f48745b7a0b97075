"""See path.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from layer45.fastpath.netlink cimport AF_INET, AF_INET6

# Numbers, not <netinet/in.h>: it and <linux/in.h>, which the netfilter headers bring, define the same things.
cdef extern from "<sys/socket.h>" nogil:
    enum:
        AF_UNSPEC
    cdef struct sockaddr:
        pass
    int connect(int, const sockaddr *, uint32_t)
    int getsockopt(int, int, int, void *, uint32_t *)

cdef enum:
    LEVEL_IPV4 = 0
    LEVEL_IPV6 = 41
    IPV4_PATH_MTU = 14
    IPV6_PATH_MTU = 24


cdef uint32_t write_address(uint8_t ip_version, const uint8_t *address, uint32_t ifindex, uint8_t *into) noexcept nogil:
    cdef uint16_t family = AF_INET6 if ip_version == 6 else AF_INET
    memset(into, 0, ADDRESS_BYTES)
    memcpy(into, &family, 2)
    if family == AF_INET:
        memcpy(into + 4, address, 4)
        return 16
    memcpy(into + 8, address, 16)
    if address[0] == 0xFE and address[1] & 0xC0 == 0x80 or address[0] == 0xFF:
        memcpy(into + 24, &ifindex, 4)
    return 28


cdef uint32_t path_mtu(int fd, uint8_t ip_version, const uint8_t *address, uint32_t ifindex) noexcept nogil:
    cdef uint8_t name[ADDRESS_BYTES]
    cdef uint32_t name_bytes = write_address(ip_version, address, ifindex, name), value_bytes = 4
    cdef uint16_t nobody = AF_UNSPEC
    cdef int mtu = 0
    cdef int level = LEVEL_IPV6 if ip_version == 6 else LEVEL_IPV4
    if connect(fd, <const sockaddr *> name, name_bytes) != 0:
        return 0
    if getsockopt(fd, level, IPV6_PATH_MTU if ip_version == 6 else IPV4_PATH_MTU, &mtu, &value_bytes) != 0:
        mtu = 0
    memset(name, 0, sizeof(name))
    memcpy(name, &nobody, 2)
    connect(fd, <const sockaddr *> name, name_bytes)
    return <uint32_t> max(mtu, 0)
