"""A queue's messages as carriers: the receive slots, and what the kernel says of each packet.

A slot is  room in front | netlink message, the packet last in it | room behind . Once its attributes are read, the
message in front of the packet is room too.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from layer45.fastpath.netlink cimport iovec, mmsghdr
from layer45.fastpath.pool cimport l45_carrier

cdef enum:
    BATCH = 64
    MESSAGE_ROOM_BYTES = 512    # what a message takes beside its packet
    MARK_RUNS = 16
    NO_DIRECTION = 2            # of a packet whose hook is not known yet, or not ours

# How a class number lies in a mark: runs of adjacent bits, lowest first.
cdef struct l45_marks:
    uint32_t runs
    uint32_t shift[MARK_RUNS]
    uint32_t mask[MARK_RUNS]    # of the run, moved to bit 0
    uint32_t place[MARK_RUNS]   # of the run's first bit in the class number

cdef enum message_kind:
    MESSAGE_PACKET
    MESSAGE_ERROR       # the kernel refuses something we sent
    MESSAGE_UNREADABLE  # nothing to give a verdict on
    MESSAGE_UNUSABLE    # a packet without bytes, or in a hook that is not ours: pass it

cdef struct l45_slots:
    uint8_t *memory
    mmsghdr messages[BATCH]
    iovec pieces[BATCH]

cdef int slots_start(l45_slots *slots, uint32_t copy_bytes) noexcept nogil
cdef void slots_end(l45_slots *slots) noexcept nogil
cdef void marks_start(l45_marks *marks, uint32_t class_mask) noexcept nogil


cdef inline uint16_t class_of(const l45_marks *marks, uint32_t mark) noexcept nogil:
    cdef uint32_t run, value = 0
    for run in range(marks.runs):
        value |= (mark >> marks.shift[run] & marks.mask[run]) << marks.place[run]
    return <uint16_t> value


cdef message_kind read_message(l45_slots *slots, uint32_t at, const l45_marks *marks,
                               l45_carrier *carrier) noexcept nogil
