"""Which packets a policy is for, where only the packet is known and not its socket: a match in C."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from layer45.fastpath.abi cimport l45_packet

ctypedef struct l45_network:
    uint8_t version
    uint8_t address[16]  # the first 4 for IPv4
    uint8_t mask[16]

ctypedef struct l45_ports:
    uint16_t first
    uint16_t last

# A list of values means any of; an empty one is no condition; lists together mean all of.
ctypedef struct l45_keys:
    bint udp
    bint tcp
    uint32_t local_count
    uint32_t remote_count
    uint32_t local_port_count
    uint32_t remote_port_count
    l45_network *local
    l45_network *remote
    l45_ports *local_port
    l45_ports *remote_port

ctypedef struct l45_match:
    l45_keys select
    l45_keys unless
    bint has_unless

cdef bint matches(const l45_match *match, const l45_packet *packet) noexcept nogil


cdef class Match:
    cdef l45_match match
