"""Packets of our own: raw sockets whose exempt mark keeps them out of the queues, sent in batches by sendmmsg."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from layer45.fastpath.netlink cimport iovec, mmsghdr
from layer45.fastpath.path cimport ADDRESS_BYTES
from layer45.fastpath.pool cimport l45_carrier

# At the limits a batch is sent at once; a packet's own seven longest copies, in fragments, never get there if the
# loop flushes beforehand whenever injector_pressed says so.
cdef enum:
    INJECT_LIMIT = 512              # packets in one batch, of each family
    INJECT_STAGING_BYTES = 1 << 20
    PRESSED_COUNT = 64
    PRESSED_BYTES = 1 << 18

cdef struct l45_injector:
    int fds[2]                      # IPv4, IPv6; -1: none
    uint32_t count[2]
    mmsghdr messages[2][INJECT_LIMIT]
    iovec pieces[2][INJECT_LIMIT]
    uint8_t addresses[2][INJECT_LIMIT][ADDRESS_BYTES]
    size_t staging_used
    uint8_t *staging
    uint32_t ifindex                # of the packet being added
    uint32_t identification
    uint64_t *sent                  # counters
    uint64_t *errors

# Takes over the descriptors. 0, or -1 when there is no memory.
cdef int injector_start(l45_injector *injector, int fd4, int fd6, uint64_t *sent, uint64_t *errors) noexcept nogil
cdef void injector_end(l45_injector *injector) noexcept nogil
# Copies the packet; cut into fragments where it is longer than its carrier's mtu.
cdef void inject(l45_injector *injector, const l45_carrier *carrier) noexcept nogil

cdef inline bint injector_pressed(const l45_injector *injector) noexcept nogil:
    return injector.count[0] >= PRESSED_COUNT or injector.count[1] >= PRESSED_COUNT \
        or injector.staging_used >= PRESSED_BYTES

cdef inline bint injector_waits(const l45_injector *injector) noexcept nogil:
    """Whether there is something to send."""
    return injector.count[0] or injector.count[1]

# Tells the local sender of a packet that fitting_bytes is the most that fits: ICMP type 3 code 4, ICMPv6 type 2.
cdef void inject_too_big(l45_injector *injector, const l45_carrier *carrier, uint32_t fitting_bytes) noexcept nogil
cdef void injector_flush(l45_injector *injector) noexcept nogil
