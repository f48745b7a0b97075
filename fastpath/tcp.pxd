"""A TCP header's fields and options (RFC 9293 section 3.1, RFC 7323, RFC 2018), and edits to the options.

Writers of fields call begin_edit first. Offsets of options are from packet.data.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from layer45.fastpath.abi cimport l45_packet
from layer45.fastpath.packet cimport load_be16, load_be32

cdef enum:
    TCP_FIN = 1
    TCP_SYN = 2
    TCP_RST = 4
    TCP_PSH = 8
    TCP_ACK = 16
    TCP_URG = 32

cdef enum:
    TCP_SEQUENCE = 4          # where in the header
    TCP_ACKNOWLEDGEMENT = 8
    TCP_FLAGS = 13
    TCP_WINDOW = 14
    TCP_URGENT = 18
    TCP_HEADER_BYTES = 20
    TCP_OPTION_BYTES = 40     # at most

cdef enum:
    OPTION_END = 0
    OPTION_NOP = 1
    OPTION_MSS = 2
    OPTION_SCALE = 3
    OPTION_SACK = 5
    OPTION_MD5 = 19           # RFC 2385: signs the segment
    OPTION_AO = 29            # RFC 5925: signs the segment
    OPTION_MPTCP = 30         # RFC 8684: counts the stream's bytes itself
    OPTION_EXPERIMENT = 253   # RFC 6994: begins with an ExID
    OPTION_EXPERIMENT_2 = 254

# The engine's own experiment, by which the ends of a connection find out that they run the same chain: agree.pxd.
cdef enum:
    OFFER_BYTES = 8
    OFFER_EXID = 0x4C45

cdef enum:
    SCALE_LIMIT = 14          # RFC 7323 section 2.3
    NO_SCALE = 255

# An option, or none: at 0.
cdef struct l45_option:
    uint32_t at
    uint32_t bytes

cdef bint options_sound(const l45_packet *packet) noexcept nogil
cdef l45_option option_find(const l45_packet *packet, uint8_t kind) noexcept nogil
cdef l45_option option_experiment(const l45_packet *packet, uint8_t kind, uint16_t exid) noexcept nogil
cdef int option_insert(l45_packet *packet, const uint8_t *bytes, uint32_t count) noexcept nogil
cdef void option_remove(l45_packet *packet, l45_option option) noexcept nogil


cdef inline uint8_t *tcp_header(const l45_packet *packet) noexcept nogil:
    return packet.data + packet.l4_offset


cdef inline uint8_t tcp_flags(const l45_packet *packet) noexcept nogil:
    return tcp_header(packet)[TCP_FLAGS]


cdef inline uint32_t tcp_sequence(const l45_packet *packet) noexcept nogil:
    return load_be32(tcp_header(packet) + TCP_SEQUENCE)


cdef inline uint32_t tcp_acknowledgement(const l45_packet *packet) noexcept nogil:
    return load_be32(tcp_header(packet) + TCP_ACKNOWLEDGEMENT)


cdef inline uint32_t tcp_window(const l45_packet *packet) noexcept nogil:
    return load_be16(tcp_header(packet) + TCP_WINDOW)


cdef inline uint32_t option_room(const l45_packet *packet) noexcept nogil:
    """How many bytes of options still fit into the header."""
    return TCP_HEADER_BYTES + TCP_OPTION_BYTES - (packet.payload_offset - packet.l4_offset)


cdef inline int64_t stream_offset(uint32_t number, uint32_t first, int64_t near) noexcept nogil:
    """The 64-bit offset that a sequence number stands for: the one nearest to `near`. first: that of offset 0."""
    return near + <int> (number - first - <uint32_t> near)
