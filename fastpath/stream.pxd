"""One TCP connection as a chain's stream modules change it, and one segment's way through one of them, its stage.

A stage has a stream side, towards the application, and a wire side. Sequence number first + o is byte o of the stream
on the stream side of the first stage, first + W(o) behind it, and so on: all sides begin at the same number.

Which 64-bit offset a 32-bit number means is decided by the nearest to one that the local kernel used last: only egress
packets move these. So nothing that arrives can lead a good connection astray.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_verdict
from layer45.fastpath.chain cimport l45_instance

# What a SYN from outside said; it counts when our kernel answers it.
cdef struct l45_syn:
    uint32_t first       # sequence number behind the SYN
    uint32_t data_bytes
    uint8_t seen
    uint8_t scale        # NO_SCALE: no such option
    uint8_t offered
    uint8_t digests[4]   # of the chain it offers: egress, ingress

# One stream, whose bytes go egress or ingress, at one stage.
cdef struct l45_stage_way:
    int64_t near_stream
    int64_t near_wire
    int64_t fin          # the stream's length, on the stream side, or NO_FIN

cdef struct l45_stage:
    l45_stage_way ways[2]  # of the stream that leaves, and of the one that comes
    int64_t sent           # how far our kernel has sent
    int64_t edge           # how far it has let the peer send
    int64_t widest         # the widest window that the peer has announced

# In the flow's block, in front of the stages.
cdef struct l45_connection:
    uint32_t first[2]    # sequence number of offset 0, by the direction of the stream's bytes
    uint32_t isn         # our kernel's
    uint32_t syn_bytes   # data in its SYN
    uint16_t mss         # the peer's, as its SYN said; 0: it did not
    uint16_t path_mtu    # as our kernel knew it at the start, or less where an ICMP error told of it; 0: not known
    uint8_t scale[2]     # window shift of the windows that leave, and of those that come
    uint8_t started      # our kernel has sent a SYN
    uint8_t syns         # SYNs it has sent so far, without ACK
    uint8_t offered      # one of them had our offer
    uint8_t confirmed    # the handshake is over, or our kernel sends
    uint8_t reset        # by a RST that a kernel takes
    l45_syn peer

cdef enum:
    NO_FIN = -1

# Our kernel's number for one of what we sent, as it is on the wire side.
cdef uint32_t stage_back(const l45_instance *instance, const l45_connection *connection, const l45_stage *stage,
                         uint32_t number) noexcept nogil
cdef l45_verdict stage_egress(l45_context *context, const l45_instance *instance, l45_connection *connection,
                              l45_stage *stage, l45_packet *packet) noexcept nogil
cdef l45_verdict stage_ingress(l45_context *context, const l45_instance *instance, l45_connection *connection,
                               l45_stage *stage, l45_packet *packet) noexcept nogil
