"""Link headers of captures: Ethernet, Linux cooked (SLL, SLL2), raw IP, BSD loopback; VLAN tags behind an
Ethertype."""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from layer45.fastpath.packet cimport load_be16, load_be32

cdef enum:
    ETHERTYPE_IPV4 = 0x0800
    ETHERTYPE_IPV6 = 0x86DD
    ETHERTYPE_8021Q = 0x8100
    ETHERTYPE_8021AD = 0x88A8
    ETHERTYPE_QINQ = 0x9100    # 802.1ad before it was a standard
    HARDWARE_FRAD = 770        # cooked captures of these types have no Ethertype in the protocol field
    HARDWARE_RADIOTAP = 803
    HARDWARE_NETLINK = 824


cdef bint link_supported(int link_type) noexcept nogil:
    return link_type in (
        LINK_NULL, LINK_ETHERNET, LINK_RAW, LINK_RAW_OPENBSD, LINK_LOOP, LINK_COOKED, LINK_IPV4, LINK_IPV6,
        LINK_COOKED2)


cdef int32_t locate_ip(int link_type, const uint8_t *frame, uint32_t captured) noexcept nogil:
    """The bytes in front of the IP packet, at most LONGEST_LINK_BYTES, or a link_result.

    At least one byte of the packet is there, and its version is the one the link header names.
    """
    if link_type == LINK_ETHERNET:
        return _behind_ethertype(frame, captured, 12, 14)
    if link_type == LINK_COOKED:
        return _cooked(frame, captured, 2, 14, 16)
    if link_type == LINK_COOKED2:
        return _cooked(frame, captured, 8, 0, 20)
    if link_type == LINK_NULL or link_type == LINK_LOOP:
        return _loopback(link_type, frame, captured)
    if link_type == LINK_IPV4:
        return _version(frame, captured, 0, 4)
    if link_type == LINK_IPV6:
        return _version(frame, captured, 0, 6)
    return _raw(frame, captured)


cdef inline int32_t _version(
        const uint8_t *frame, uint32_t captured, uint32_t offset, int version) noexcept nogil:
    if captured <= offset:
        return LINK_SHORT
    return <int32_t> offset if frame[offset] >> 4 == version else LINK_LIES


cdef inline int32_t _raw(const uint8_t *frame, uint32_t captured) noexcept nogil:
    if captured == 0:
        return LINK_SHORT
    return 0 if frame[0] >> 4 in (4, 6) else LINK_NOT_IP


cdef inline bint _is_tag(uint32_t ethertype) noexcept nogil:
    return ethertype in (ETHERTYPE_8021Q, ETHERTYPE_8021AD, ETHERTYPE_QINQ)


cdef int32_t _behind_ethertype(
        const uint8_t *frame, uint32_t captured, uint32_t type_offset, uint32_t offset) noexcept nogil:
    """Follows the tags: each has the next Ethertype in its last two bytes."""
    cdef uint32_t ethertype, tags = 0
    if captured < offset:
        return LINK_SHORT
    ethertype = load_be16(frame + type_offset)
    while _is_tag(ethertype):
        tags += 1
        if tags > MAXIMUM_TAGS:
            return LINK_TOO_MANY_TAGS
        if captured < offset + 4:
            return LINK_SHORT
        ethertype = load_be16(frame + offset + 2)
        offset += 4
    if ethertype == ETHERTYPE_IPV4:
        return _version(frame, captured, offset, 4)
    if ethertype == ETHERTYPE_IPV6:
        return _version(frame, captured, offset, 6)
    return LINK_NOT_IP


cdef int32_t _cooked(const uint8_t *frame, uint32_t captured, uint32_t hardware_offset, uint32_t type_offset,
                     uint32_t header_bytes) noexcept nogil:
    if captured < header_bytes:
        return LINK_SHORT
    if load_be16(frame + hardware_offset) in (HARDWARE_FRAD, HARDWARE_RADIOTAP, HARDWARE_NETLINK):
        return LINK_NOT_IP
    return _behind_ethertype(frame, captured, type_offset, header_bytes)


cdef inline int _family_version(uint32_t family) noexcept nogil:
    """AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24, 28 or 30 on the BSDs and macOS."""
    if family == 2:
        return 4
    return 6 if family in (10, 24, 28, 30) else 0


cdef int32_t _loopback(int link_type, const uint8_t *frame, uint32_t captured) noexcept nogil:
    """LOOP has the family in network order, NULL in that of the capturing host, which nothing tells."""
    cdef uint32_t family
    cdef int version
    if captured < 4:
        return LINK_SHORT
    family = load_be32(frame)
    version = _family_version(family)
    if version == 0 and link_type == LINK_NULL:
        version = _family_version(
            family >> 24 | (family >> 8 & 0xFF00) | (family << 8 & 0xFF0000) | family << 24)
    return _version(frame, captured, 4, version) if version else LINK_NOT_IP


RESULTS = {
    LINK_SHORT: "link_short",
    LINK_NOT_IP: "not_ip",
    LINK_TOO_MANY_TAGS: "too_many_tags",
    LINK_LIES: "link_lies",
}


def supported(int link_type) -> bool:
    """Whether frames of this LINKTYPE_ can be read."""
    return link_supported(link_type)


def locate(int link_type, const uint8_t[::1] frame not None) -> int | str:
    """Bytes in front of the IP packet in a frame, or the name of the reason why there is none."""
    cdef const uint8_t *start = &frame[0] if frame.shape[0] else NULL
    cdef int32_t result = locate_ip(link_type, start, <uint32_t> frame.shape[0])
    return result if result >= 0 else RESULTS[result]
