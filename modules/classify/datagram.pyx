"""See datagram.pxd. Those with a magic number come first: RFC 7983 and RFC 9443 say that none of them is another."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from layer45.fastpath.packet cimport load_be16, load_be32
from layer45.modules.classify.dns cimport is_dns
from layer45.modules.classify.protocols cimport DNS, DTLS, QUIC, RTP, STUN, WIREGUARD
from layer45.modules.classify.text cimport protocol_of_call

cdef enum:
    QUIC_1 = 0x00000001
    QUIC_2 = 0x6B3343CF
    LONGEST_CONNECTION_ID_BYTES = 20
    STUN_COOKIE = 0x2112A442
    STUN_HEADER_BYTES = 20
    DTLS_HEADER_BYTES = 13
    RTP_HEADER_BYTES = 12
    RTP_LAST_ASSIGNED = 34      # payload types: RFC 3551 section 6, RFC 5761 section 4
    RTP_FIRST_DYNAMIC = 96
    RTP_LOST = 16               # so many packets may be missing between two that are compared
    INITIATION_BYTES = 148
    RESPONSE_BYTES = 92


cdef bint is_quic(const uint8_t *at, uint32_t count) noexcept nogil:
    """A long header: RFC 9000 section 17.2, RFC 9369 section 3."""
    cdef uint32_t version, first
    if count < 7 or at[0] & 0xC0 != 0xC0:
        return False
    version, first = load_be32(at + 1), at[5]
    if version != QUIC_1 and version != <uint32_t> QUIC_2:
        return False
    return first <= LONGEST_CONNECTION_ID_BYTES and 6 + first < count and at[6 + first] <= LONGEST_CONNECTION_ID_BYTES


cdef bint is_dtls(const uint8_t *at, uint32_t count, uint32_t whole) noexcept nogil:
    """A record with its whole header: RFC 6347 section 4.1, RFC 9147 section 4."""
    if count < DTLS_HEADER_BYTES or not 20 <= at[0] <= 23 or at[1] != 0xFE or (at[2] != 0xFF and at[2] != 0xFD):
        return False
    return 1 <= load_be16(at + 11) <= whole - DTLS_HEADER_BYTES


cdef bint is_stun(const uint8_t *at, uint32_t count, uint32_t whole) noexcept nogil:
    """RFC 8489 section 5."""
    if count < STUN_HEADER_BYTES or at[0] & 0xC0 or load_be32(at + 4) != STUN_COOKIE:
        return False
    return load_be16(at + 2) % 4 == 0 and load_be16(at + 2) == whole - STUN_HEADER_BYTES


cdef bint is_wireguard(const uint8_t *at, uint32_t count, uint32_t whole) noexcept nogil:
    """A handshake's two messages: WireGuard's paper, section 5.4."""
    cdef uint32_t length = INITIATION_BYTES if count and at[0] == 1 else RESPONSE_BYTES
    return count >= 4 and 1 <= at[0] <= 2 and not (at[1] | at[2] | at[3]) and whole == length


cdef bint is_rtp(const uint8_t *at, uint32_t count, uint32_t whole, rtp_seen *seen) noexcept nogil:
    """RFC 3550 section 5.1 has no magic number: certain are two of one source, one soon after the other."""
    cdef uint32_t source
    cdef uint16_t sequence, step
    cdef uint8_t kind
    cdef bint follows
    if count < RTP_HEADER_BYTES or at[0] & 0xC0 != 0x80 or <uint32_t> (RTP_HEADER_BYTES + (at[0] & 15) * 4) > whole:
        return False
    kind = at[1] & 0x7F
    if RTP_LAST_ASSIGNED < kind < RTP_FIRST_DYNAMIC:
        return False
    source, sequence = load_be32(at + 8), load_be16(at + 2)
    step = <uint16_t> (sequence - seen.sequence)
    follows = seen.any and seen.source == source and 1 <= step <= RTP_LOST
    seen.any, seen.source, seen.sequence = True, source, sequence
    return follows


cdef uint32_t protocol_of_datagram(const uint8_t *at, uint32_t count, uint32_t whole, rtp_seen *seen) noexcept nogil:
    if is_stun(at, count, whole):
        return STUN
    if is_quic(at, count):
        return QUIC
    if is_dtls(at, count, whole):
        return DTLS
    if is_wireguard(at, count, whole):
        return WIREGUARD
    if is_dns(at, count):
        return DNS
    if is_rtp(at, count, whole, seen):
        return RTP
    return protocol_of_call(at, count)
