"""See inject.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from layer45.fastpath.checksum cimport sum_add, sum_bytes
from layer45.fastpath.fragment cimport fragment
from layer45.fastpath.netlink cimport mmsghdr, sendmmsg
from layer45.fastpath.packet cimport SMALLEST_IPV6_MTU, store_be16, store_be32
from layer45.fastpath.path cimport destination, write_address
from layer45.fastpath.pool cimport l45_carrier

cdef extern from "<unistd.h>" nogil:
    int close(int)

cdef enum:
    QUOTE_V4_BYTES = 28             # of the refused packet: an IPv4 header and 8 bytes (RFC 792), more with options
    QUOTE_V6_BYTES = 512
    PROTOCOL_ICMP = 1
    PROTOCOL_ICMPV6 = 58
    HOP_LIMIT = 64


cdef int injector_start(l45_injector *injector, int fd4, int fd6, uint64_t *sent, uint64_t *errors) noexcept nogil:
    memset(injector, 0, sizeof(l45_injector))
    injector.fds[0] = fd4
    injector.fds[1] = fd6
    injector.sent = sent
    injector.errors = errors
    injector.staging = <uint8_t *> malloc(INJECT_STAGING_BYTES)
    return 0 if injector.staging != NULL else -1


cdef void injector_end(l45_injector *injector) noexcept nogil:
    cdef int which
    free(injector.staging)
    injector.staging = NULL
    for which in range(2):
        if injector.fds[which] >= 0:
            close(injector.fds[which])
        injector.fds[which] = -1


cdef void inject(l45_injector *injector, const l45_carrier *carrier) noexcept nogil:
    cdef uint32_t count = <uint32_t> (carrier.packet.tail - carrier.packet.data)
    injector.ifindex = carrier.ifindex
    if carrier.mtu == 0 or count <= carrier.mtu:
        _add(injector, carrier.packet.data, count, NULL, 0)
        return
    injector.identification += 1
    if fragment(carrier.packet.data, count, carrier.packet.l4_offset, carrier.mtu, injector.identification,
                _add_piece, injector) != 0:
        injector.errors[0] += 1


cdef void _add_piece(void *self, const uint8_t *headers, uint32_t header_bytes, const uint8_t *body,
                     uint32_t body_bytes) noexcept nogil:
    _add(<l45_injector *> self, headers, header_bytes, body, body_bytes)


cdef void _add(l45_injector *injector, const uint8_t *headers, uint32_t header_bytes, const uint8_t *body,
               uint32_t body_bytes) noexcept nogil:
    cdef int which = 1 if headers[0] >> 4 == 6 else 0
    cdef uint32_t at, count = header_bytes + body_bytes
    cdef uint8_t *into
    if injector.count[which] == INJECT_LIMIT or injector.staging_used + count > INJECT_STAGING_BYTES:
        injector_flush(injector)
    into = injector.staging + injector.staging_used
    memcpy(into, headers, header_bytes)
    if body_bytes:
        memcpy(into + header_bytes, body, body_bytes)
    injector.staging_used += count
    at = injector.count[which]
    injector.count[which] += 1
    injector.pieces[which][at].iov_base = into
    injector.pieces[which][at].iov_len = count
    memset(&injector.messages[which][at], 0, sizeof(mmsghdr))
    injector.messages[which][at].msg_hdr.msg_iov = &injector.pieces[which][at]
    injector.messages[which][at].msg_hdr.msg_iovlen = 1
    injector.messages[which][at].msg_hdr.msg_name = injector.addresses[which][at]
    injector.messages[which][at].msg_hdr.msg_namelen = write_address(
        into[0] >> 4, destination(into), injector.ifindex, injector.addresses[which][at])


cdef void injector_flush(l45_injector *injector) noexcept nogil:
    cdef int which
    for which in range(2):
        if injector.count[which]:
            _send(injector, which)
    injector.staging_used = 0


cdef void _send(l45_injector *injector, int which) noexcept nogil:
    """sendmmsg stops at a packet that is refused: count it, and go on behind it."""
    cdef uint32_t done = 0
    cdef int result
    while done < injector.count[which]:
        result = sendmmsg(injector.fds[which], &injector.messages[which][done], injector.count[which] - done, 0)
        if result <= 0:
            injector.errors[0] += 1
            done += 1
        else:
            injector.sent[0] += result
            done += result
    injector.count[which] = 0


cdef void inject_too_big(l45_injector *injector, const l45_carrier *carrier, uint32_t fitting_bytes) noexcept nogil:
    injector.ifindex = carrier.ifindex
    if carrier.packet.ip_version == 4:
        _fragmentation_needed(injector, carrier, fitting_bytes)
    else:
        _packet_too_big(injector, carrier, max(fitting_bytes, <uint32_t> SMALLEST_IPV6_MTU))


cdef void _fragmentation_needed(l45_injector *injector, const l45_carrier *carrier, uint32_t mtu) noexcept nogil:
    """RFC 1191 section 4, from and to the sender's own address."""
    cdef uint8_t message[20 + 8 + 60 + 8]
    cdef uint32_t quoted = carrier.packet.l4_offset + 8
    cdef uint16_t field
    memset(message, 0, sizeof(message))
    message[0] = 0x45
    store_be16(message + 2, 28 + quoted)
    message[8] = HOP_LIMIT
    message[9] = PROTOCOL_ICMP
    memcpy(message + 12, carrier.packet.data + 12, 4)
    memcpy(message + 16, carrier.packet.data + 12, 4)
    message[20] = 3
    message[21] = 4
    store_be16(message + 26, mtu)
    memcpy(message + 28, carrier.packet.data, quoted)
    field = <uint16_t> (sum_bytes(message + 20, 8 + quoted) ^ 0xFFFF)
    memcpy(message + 22, &field, 2)
    _add(injector, message, 28 + quoted, NULL, 0)


cdef void _packet_too_big(l45_injector *injector, const l45_carrier *carrier, uint32_t mtu) noexcept nogil:
    """RFC 4443 section 3.2, from and to the sender's own address."""
    cdef uint8_t message[48 + QUOTE_V6_BYTES]
    cdef uint32_t quoted = min(<uint32_t> QUOTE_V6_BYTES, <uint32_t> (carrier.packet.tail - carrier.packet.data))
    cdef uint8_t rest[4]
    cdef uint16_t field
    memset(message, 0, 48)
    message[0] = 0x60
    store_be16(message + 4, 8 + quoted)
    message[6] = PROTOCOL_ICMPV6
    message[7] = HOP_LIMIT
    memcpy(message + 8, carrier.packet.data + 8, 16)
    memcpy(message + 24, carrier.packet.data + 8, 16)
    message[40] = 2
    store_be32(message + 44, mtu)
    memcpy(message + 48, carrier.packet.data, quoted)
    rest[0] = 0
    rest[1] = PROTOCOL_ICMPV6
    store_be16(rest + 2, 8 + quoted)
    field = <uint16_t> (sum_add(sum_add(sum_bytes(message + 8, 32), sum_bytes(rest, 4)),
                                sum_bytes(message + 40, 8 + quoted)) ^ 0xFFFF)
    memcpy(message + 42, &field, 2)
    _add(injector, message, 48 + quoted, NULL, 0)
