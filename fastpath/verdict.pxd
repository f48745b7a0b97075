"""Verdict messages of a batch, packed for one sendmsg.

Each message is nlmsghdr 16 | nfgenmsg 4 | attribute 4 | verdict 4, id 4 [| attribute 4 | the packet | pad to 4].
Packets in a receive slot are not copied: they must stay until the flush. Packets from elsewhere are copied.

A run of packets that go on as they are takes one message: it says so for the last of them and for all that wait in
front of it (NFQNL_MSG_VERDICT_BATCH).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from layer45.fastpath.netlink cimport iovec

cdef enum:
    VERDICT_LIMIT = 128             # messages in one send
    VERDICT_BYTES_LIMIT = 1 << 19   # and bytes; the send buffer is forced to more
    VERDICT_HEADER_BYTES = 40       # the most a message takes beside its packet
    STAGING_BYTES = 1 << 18

cdef struct l45_verdicts:
    int fd
    uint16_t queue_be
    uint32_t count
    size_t bytes
    uint32_t pieces
    iovec iov[2 * VERDICT_LIMIT + 1]
    size_t header_used
    uint8_t headers[VERDICT_LIMIT * VERDICT_HEADER_BYTES]
    uint8_t *run                    # the last message, where it ends such a run; else NULL
    uint32_t run_end                # its packet
    size_t staging_used
    uint8_t *staging                # STAGING_BYTES
    uint64_t *errors                # counter of messages not taken

cdef int verdicts_start(l45_verdicts *verdicts, int fd, uint32_t queue, uint64_t *errors) noexcept nogil
cdef void verdicts_end(l45_verdicts *verdicts) noexcept nogil
# The packet goes on with the bytes that the kernel has. alone: none in front of it waits in the queue, but those that
# have their verdict here.
cdef void verdict_accept(l45_verdicts *verdicts, uint32_t packet_id, bint alone) noexcept nogil
# data: what it goes on with; NULL: what the kernel has. stays: data is good until the flush.
cdef void verdict_add(l45_verdicts *verdicts, uint32_t packet_id, uint32_t verdict, const uint8_t *data,
                      size_t count, bint stays) noexcept nogil
cdef void verdicts_flush(l45_verdicts *verdicts) noexcept nogil
