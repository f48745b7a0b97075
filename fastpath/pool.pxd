"""Packets that outlive a call: clones, and held packets. A fixed number of buffers for each worker."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_packet
from layer45.fastpath.timer cimport l45_timer

cdef enum:
    NOTE_BYTES = 64
    HEAD_ROOM_BYTES = 1280  # in front of a packet: the loader keeps the growth of datagrams and headers below it
    TAIL_ROOM_BYTES = 65536  # behind it: a stream's super-packets may double
    POOL_BUFFER_BYTES = HEAD_ROOM_BYTES + 65536 + TAIL_ROOM_BYTES

cdef enum packet_origin:
    ORIGIN_QUEUED           # in the queue's slot for the length of one call
    ORIGIN_TAKEN            # still there, but a module holds the packet; or a buffer that was given back
    ORIGIN_HELD             # waits in the kernel; its bytes are in a pool buffer
    ORIGIN_CLONE            # exists only here

# A packet with what its way in and out must remember; what the hot path passes around.
cdef struct l45_carrier:
    l45_packet packet       # first: modules see a carrier as its packet
    uint32_t queue_id       # names it in the kernel's queue
    uint32_t mtu            # of the device it leaves by; 0: unknown
    uint32_t ifindex        # of that device; 0: unknown
    uint32_t note_bytes
    uint8_t note[NOTE_BYTES]  # replay: the link header

cdef struct l45_owned:
    l45_carrier carrier     # first
    l45_timer timer         # when it goes on
    void *flow              # its entry
    l45_owned *next         # in the flow's list, or in the free list
    l45_owned *previous
    uint32_t index          # of the instance that took it
    uint32_t serial         # grows each time a module takes the packet, and when the buffer is given back
    uint8_t taken           # a module owns it now
    uint8_t *buffer

cdef struct l45_pool:
    l45_owned *owned
    uint8_t *buffers
    l45_owned *unused
    uint32_t limit
    uint32_t touched
    uint32_t live

# Of a packet in work: whether a module has taken or ended it since its serial was serial_of.
cdef inline bint gone(const l45_carrier *carrier, uint32_t serial) noexcept nogil:
    if carrier.packet.origin == ORIGIN_QUEUED:
        return False
    return carrier.packet.origin == ORIGIN_TAKEN or (<const l45_owned *> carrier).serial != serial


cdef inline uint32_t serial_of(const l45_carrier *carrier) noexcept nogil:
    return 0 if carrier.packet.origin <= ORIGIN_TAKEN else (<const l45_owned *> carrier).serial


cdef int pool_start(l45_pool *pool, uint32_t limit) noexcept nogil
cdef void pool_end(l45_pool *pool) noexcept nogil
cdef l45_owned *pool_copy(l45_pool *pool, const l45_carrier *source) noexcept nogil
cdef void pool_return(l45_pool *pool, l45_owned *owned) noexcept nogil
