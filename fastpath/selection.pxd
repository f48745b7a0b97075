"""Which packets a module chooses: by the payload's first bytes and its length. The parameters are those of module drop.

The kernel chooses in the same way, where a chain is its own: rules/kernel_program.py.
"""

from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t
from libc.string cimport memcmp

from layer45.fastpath.abi cimport L45_TRUNCATED, l45_packet, l45_param
from layer45.fastpath.packet cimport payload, payload_bytes
from layer45.fastpath.params cimport copy_bytes

cdef enum:
    LARGEST_PREFIX_BYTES = 32
    LONGEST_PAYLOAD_BYTES = 65535  # as a range's last it is no limit: a super-packet may have more

cdef struct l45_selection:
    uint32_t shortest_bytes
    uint32_t longest_bytes
    uint32_t prefix_bytes
    uint8_t prefix[LARGEST_PREFIX_BYTES]
    bint invert


cdef inline l45_selection selection_by(l45_param prefix, l45_param length, l45_param invert) noexcept nogil:
    """Of parameters of type bytes, range and boolean."""
    cdef l45_selection made
    made.prefix_bytes = <uint32_t> copy_bytes(prefix, made.prefix, LARGEST_PREFIX_BYTES)
    made.shortest_bytes, made.longest_bytes = <uint32_t> length.integer, <uint32_t> length.last
    if made.longest_bytes == LONGEST_PAYLOAD_BYTES:
        made.longest_bytes = UINT32_MAX
    made.invert = invert.integer != 0
    return made


cdef inline uint32_t whole_payload_bytes(const l45_packet *packet) noexcept nogil:
    """As long as the payload was on arrival, also where our buffer holds less of it."""
    if packet.flags & L45_TRUNCATED:
        return packet.wire_bytes - packet.payload_offset
    return payload_bytes(packet)


cdef inline int selected(const l45_selection *by, const l45_packet *packet) noexcept nogil:
    """1 or 0, or -1: the buffer ends inside the prefix."""
    cdef uint32_t whole = whole_payload_bytes(packet)
    cdef bint match = by.shortest_bytes <= whole <= by.longest_bytes and by.prefix_bytes <= whole
    if match and by.prefix_bytes:
        if payload_bytes(packet) < by.prefix_bytes:
            return -1
        match = memcmp(payload(packet), by.prefix, by.prefix_bytes) == 0
    return match != by.invert
