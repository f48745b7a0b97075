"""What stands on the wire: README.md, "Wire"."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from layer45.fastpath.abi cimport l45_packet
from layer45.fastpath.packet cimport load_be16, load_be32, store_be16, store_be32
from layer45.fastpath.reed_solomon cimport RS_MOST_REPAIRS, RS_MOST_SOURCES, RS_MOST_SYMBOLS

cdef enum:
    ID_BYTES = 6
    HEAD_BYTES = 3          # of a source symbol, in front of the payload: flow id, length
    SBN_COUNT = 1 << 24
    SBN_MASK = SBN_COUNT - 1
    EPOCH_SHIFT = 12        # a sender's first SBN is a random number of blocks of so many bits

cdef struct fec_id:
    uint32_t sbn
    uint32_t esi
    uint32_t k


cdef inline void id_write(uint8_t *at, uint32_t sbn, uint32_t esi, uint32_t k) noexcept nogil:
    store_be32(at, sbn << 8 | esi)
    store_be16(at + 4, k)


cdef inline fec_id id_read(const uint8_t *at) noexcept nogil:
    cdef fec_id id
    cdef uint32_t word = load_be32(at)
    id.sbn = word >> 8
    id.esi = word & 0xFF
    id.k = load_be16(at + 4)
    return id


cdef inline void set_port(l45_packet *packet, uint16_t port_be) noexcept nogil:
    """Changes the destination; the checksum follows when the packet is sealed, for which an edit must have begun."""
    memcpy(packet.data + packet.l4_offset + 2, &port_be, 2)


cdef inline bint id_valid(fec_id id) noexcept nogil:
    """Whether a sender could have written it."""
    return 1 <= id.k <= RS_MOST_SOURCES and id.esi < min(id.k + RS_MOST_REPAIRS, <uint32_t> RS_MOST_SYMBOLS)


cdef inline bint is_source(fec_id id) noexcept nogil:
    return id.esi < id.k


cdef inline int32_t sbn_ahead(uint32_t sbn, uint32_t of) noexcept nogil:
    """How many blocks one number lies ahead of another; negative: behind. The numbers wrap."""
    return <int32_t> ((sbn - of) << 8) >> 8


cdef inline uint32_t first_sbn(uint64_t random) noexcept nogil:
    """Where a sender begins: a receiver that has heard the same flow before must not take it for the past again."""
    return <uint32_t> (random << EPOCH_SHIFT) & SBN_MASK


cdef inline uint32_t behind_first(uint32_t sbn) noexcept nogil:
    """How far a number lies behind the first one of a sender that began shortly before."""
    return sbn & ((1 << EPOCH_SHIFT) - 1)


cdef inline bint is_symbol(const uint8_t *symbol, uint32_t bytes) noexcept nogil:
    """Whether a sender makes such a source symbol: of its one flow, a payload that fits, and zeros behind it."""
    cdef uint32_t at
    if bytes < HEAD_BYTES or symbol[0] != 0:
        return False
    at = HEAD_BYTES + load_be16(symbol + 1)
    if at > bytes:
        return False
    while at < bytes:
        if symbol[at]:
            return False
        at += 1
    return True
