"""Where the IP packet begins in a captured frame. Takes hostile bytes: nothing is read behind `captured`."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

cdef enum:
    LINK_NULL = 0
    LINK_ETHERNET = 1
    LINK_RAW = 12
    LINK_RAW_OPENBSD = 14
    LINK_LOOP = 108
    LINK_COOKED = 113
    LINK_IPV4 = 228
    LINK_IPV6 = 229
    LINK_COOKED2 = 276
    LONGEST_LINK_BYTES = 52  # the longest header, SLL2, with MAXIMUM_TAGS tags
    MAXIMUM_TAGS = 8         # 802.1Q and 802.1ad tags in a row

# Why a frame has no IP packet for us; each is a counter of a replay.
cdef enum link_result:
    LINK_SHORT = -1         # fewer bytes than the link header needs
    LINK_NOT_IP = -2        # another protocol: ARP, LLC, netlink ...
    LINK_TOO_MANY_TAGS = -3
    LINK_LIES = -4          # the link header names another IP version than the packet

cdef bint link_supported(int link_type) noexcept nogil
cdef int32_t locate_ip(int link_type, const uint8_t *frame, uint32_t captured) noexcept nogil
