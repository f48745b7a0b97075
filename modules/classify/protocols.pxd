"""The protocols that are told apart. Who tells them answers UNKNOWN where it is not certain.

Functions get a payload's first bytes at `at`, `count` of them; `whole` is the payload's length, which may be more.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

cdef enum:                      # counters, as in module.toml
    PACKETS, BYTES, UNDECIDED, TLS, HTTP, SSH, SMTP, IMAP, POP3, MQTT, BITTORRENT, SIP, RTSP, DNS, QUIC, DTLS, STUN
    RTP, WIREGUARD, OTHER

cdef enum:
    COUNTERS = OTHER + 1
    UNKNOWN = PACKETS           # a counter that is no protocol's


cdef inline bint begins(const uint8_t *at, uint32_t count, const char *text, uint32_t length) noexcept nogil:
    return count >= length and memcmp(at, text, length) == 0
