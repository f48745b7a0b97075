"""See segment.pxd."""

from libc.stdint cimport uint8_t, uint32_t

from layer45.fastpath.packet cimport load_be16
from layer45.modules.classify.dns cimport is_dns
from layer45.modules.classify.protocols cimport BITTORRENT, DNS, MQTT, TLS, begins
from layer45.modules.classify.text cimport protocol_of_text

cdef enum:
    CHANGE_CIPHER = 20          # a TLS record's content
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION = 23
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    LONGEST_RECORD_BYTES = 16384 + 2048  # of TLS 1.2; TLS 1.3 has shorter ones
    CONNECT = 0x10              # MQTT's first packet


cdef bint is_tls(const uint8_t *at, uint32_t count) noexcept nogil:
    """A record: RFC 8446 section 5.1, RFC 5246 section 6.2. A handshake's first is a hello, later ones are secret."""
    cdef uint32_t length
    if count < 6 or at[1] != 3 or not 1 <= at[2] <= 3:
        return False
    length = load_be16(at + 3)
    if at[0] == HANDSHAKE:
        return 4 <= length <= LONGEST_RECORD_BYTES and (at[5] == CLIENT_HELLO or at[5] == SERVER_HELLO)
    if at[0] == CHANGE_CIPHER:
        return length == 1 and at[5] == 1
    if at[0] == ALERT:
        return length == 2 and (at[5] == 1 or at[5] == 2)
    return at[0] == APPLICATION and 1 <= length <= LONGEST_RECORD_BYTES


cdef bint is_mqtt(const uint8_t *at, uint32_t count) noexcept nogil:
    """CONNECT of MQTT 3.1, 3.1.1 or 5 (OASIS, section 3.1): its length has one to four bytes."""
    cdef uint32_t place = 1
    if count < 2 or at[0] != CONNECT:
        return False
    while place < 4 and place < count and at[place] & 0x80:
        place += 1
    place += 1
    if place > count or at[place - 1] & 0x80:
        return False
    return begins(at + place, count - place, b"\0\4MQTT", 6) or begins(at + place, count - place, b"\0\6MQIsdp", 8)


cdef bint is_dns_over_tcp(const uint8_t *at, uint32_t count) noexcept nogil:
    """A message behind its length: RFC 1035 section 4.2.2."""
    return count > 2 and is_dns(at + 2, min(count - 2, <uint32_t> load_be16(at)))


cdef uint32_t protocol_of_segment(const uint8_t *at, uint32_t count, bint opens) noexcept nogil:
    if is_tls(at, count):
        return TLS
    if is_mqtt(at, count):
        return MQTT
    if begins(at, count, b"\x13BitTorrent protocol", 20):
        return BITTORRENT
    if is_dns_over_tcp(at, count):
        return DNS
    return protocol_of_text(at, count, opens)
