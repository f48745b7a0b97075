"""The ends of a replay: the policy's host is the near one, its peer the far one.

There is a far end where TCP connections need the peer's agreement. What a kernel had sent goes out by its own end and
is written, and a copy of it comes in at the other one; what came over the wire comes in at its receiver's end and is
written, and a copy of it goes out by its sender's once more. What becomes of a copy does not matter: by it an end
learns what its kernel sent, or was told. So both are in the same states on the way out and on the way back.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_packet
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.match cimport l45_match

cdef enum:
    COPY_ID = 0xFFFFFFFF  # the queue_id of copies, and of what modules make of them

cdef struct l45_end:
    l45_worker *worker
    l45_end *other        # NULL: there is only the near one
    void *replay
    uint8_t *slot         # room for a copy, of both ends

# 0, or -1 when there is no memory. Their workers and replay are set.
cdef int ends_open(l45_end *near, l45_end *far) noexcept nogil
cdef void ends_forget(l45_end *near) noexcept nogil

# The end that a parsed packet goes through in its direction; NULL: the policy is not for it.
cdef l45_end *ends_choose(l45_end *near, const l45_match *match, l45_packet *packet) noexcept nogil
# Of a packet that has left this end: sends a copy through the other one, if there is one.
cdef void end_tell(const l45_end *end, const l45_packet *packet) noexcept nogil

# Timers of both ends fire in the order of their deadlines.
cdef void ends_start(l45_end *near, uint64_t now_ns) noexcept nogil
cdef uint64_t ends_next_ns(const l45_end *near) noexcept nogil
cdef void ends_advance(l45_end *near, uint64_t now_ns) noexcept nogil
# The same in steps while there are flows, so that an idle flow's timers do not fill a gap of years.
cdef void ends_stride(l45_end *near, uint64_t now_ns) noexcept nogil
# Nothing is told from then on.
cdef void ends_close_flows(l45_end *near) noexcept nogil
