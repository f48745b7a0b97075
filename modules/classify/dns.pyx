"""See dns.pxd. Only messages with one question are certain: nearly all are."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from layer45.fastpath.packet cimport load_be16

cdef enum:
    HEADER_BYTES = 12
    LONGEST_NAME_BYTES = 255
    LONGEST_LABEL_BYTES = 63
    RESPONSE = 0x8000
    RESERVED = 0x40
    QUERY = 0                   # opcodes
    NOTIFY = 4
    UNICAST = 0x8000            # in the class of a question of multicast DNS


cdef bint counts_fit(const uint8_t *at, uint16_t flags) noexcept nogil:
    """A query has no answers, but NOTIFY and IXFR have a record or so, and EDNS and signatures are additional."""
    cdef uint32_t answers = load_be16(at + 6), authorities = load_be16(at + 8), additional = load_be16(at + 10)
    if flags & RESPONSE:
        return True
    return not flags & 0xF and answers <= 1 and authorities <= 1 and additional <= 2


cdef uint32_t name_end(const uint8_t *at, uint32_t count) noexcept nogil:
    """Where the question's name has ended; 0: it is none, or does not end here. A first name is not compressed."""
    cdef uint32_t place = HEADER_BYTES
    while place < count and place < HEADER_BYTES + LONGEST_NAME_BYTES:
        if at[place] == 0:
            return place + 1
        if at[place] > LONGEST_LABEL_BYTES:
            return 0
        place += at[place] + 1
    return 0


cdef bint is_class(uint16_t number) noexcept nogil:
    """IN, CH, HS, NONE or ANY."""
    return number == 1 or number == 3 or number == 4 or number == 254 or number == 255


cdef bint is_dns(const uint8_t *at, uint32_t count) noexcept nogil:
    cdef uint16_t flags
    cdef uint32_t place
    if count < HEADER_BYTES:
        return False
    flags = load_be16(at + 2)
    if flags & RESERVED or (flags >> 11 & 0xF != QUERY and flags >> 11 & 0xF != NOTIFY) or load_be16(at + 4) != 1 \
            or not counts_fit(at, flags):
        return False
    place = name_end(at, count)
    return place != 0 and place + 4 <= count and load_be16(at + place) != 0 \
        and is_class(load_be16(at + place + 2) & ~UNICAST)
