"""Which protocol a UDP datagram is of."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

# What a direction of a flow last had that may be RTP.
cdef struct rtp_seen:
    uint32_t source             # SSRC
    uint16_t sequence
    uint16_t any

# seen: of its direction.
cdef uint32_t protocol_of_datagram(const uint8_t *at, uint32_t count, uint32_t whole, rtp_seen *seen) noexcept nogil
