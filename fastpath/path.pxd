"""Where a packet goes, and what our kernel knows of the way there."""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    ADDRESS_BYTES = 28  # sockaddr_in6


cdef inline const uint8_t *destination(const uint8_t *packet) noexcept nogil:
    return packet + (24 if packet[0] >> 4 == 6 else 16)


cdef inline const uint8_t *source(const uint8_t *packet) noexcept nogil:
    return packet + (8 if packet[0] >> 4 == 6 else 12)

# An address as sockaddr_in or sockaddr_in6, and its bytes. A link-local one is reached by the device ifindex.
cdef uint32_t write_address(uint8_t ip_version, const uint8_t *address, uint32_t ifindex, uint8_t *into) noexcept nogil
# The MTU of the path to an address, as our kernel knows it now (ip(7) and ipv6(7): IP_MTU, IPV6_MTU); 0: it does not.
# fd: a raw socket that nobody else uses meanwhile; it is left unconnected.
cdef uint32_t path_mtu(int fd, uint8_t ip_version, const uint8_t *address, uint32_t ifindex) noexcept nogil
