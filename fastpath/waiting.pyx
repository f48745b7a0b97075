"""See waiting.pxd."""

from libc.errno cimport ENOBUFS, errno
from libc.stdint cimport uint64_t

from layer45.fastpath.netlink cimport (
    MSG_DONTWAIT, MSG_WAITFORONE, POLLIN, monotonic_ns, pollfd, ppoll, recvmmsg, timespec,
)
from layer45.fastpath.receive cimport BATCH, l45_slots

cdef enum:
    SECOND_NS = 1000000000
    NEAR_NS = 2000000000    # a timer nearer than this gets a ppoll: recvmmsg may sleep for sockets.IDLE_CHECK_S
    WORTH_A_NAP = 4         # messages that may be expected to come in one


cdef int receive(l45_waiting *waiting, l45_slots *slots, int flags) noexcept nogil:
    cdef int count = recvmmsg(waiting.fd, slots.messages, BATCH, flags, NULL)
    if count < 0 and errno == ENOBUFS:
        waiting.overruns[0] += 1
    return count


cdef int wait_for_batch(l45_waiting *waiting, l45_slots *slots, uint64_t now_ns, uint64_t next_ns) noexcept nogil:
    cdef int count
    if 0 < waiting.batch < BATCH and waiting.pace_ns * WORTH_A_NAP < waiting.coalesce_ns:
        _nap(waiting, now_ns, next_ns)
    if waiting.busy_ns:
        count = _look(waiting, slots, min(next_ns, monotonic_ns() + waiting.busy_ns))
        if count > 0:
            return count
    if next_ns > now_ns + NEAR_NS:
        return receive(waiting, slots, MSG_WAITFORONE)
    count = receive(waiting, slots, MSG_DONTWAIT)
    if count > 0 or not _poll(waiting, next_ns):
        return count
    return receive(waiting, slots, MSG_DONTWAIT)


cdef void waiting_batch(l45_waiting *waiting, int count, uint64_t now_ns) noexcept nogil:
    """A pause in front of a burst counts for little; neither do an answer and the next question, one behind the other,
    make a fast flow."""
    cdef uint64_t pace_ns = (now_ns - waiting.batch_ns) // count
    waiting.pace_ns = (waiting.pace_ns + min(pace_ns, WORTH_A_NAP * waiting.coalesce_ns)) // 2
    waiting.batch_ns = now_ns
    waiting.batch = count


cdef void _nap(l45_waiting *waiting, uint64_t now_ns, uint64_t until_ns) noexcept nogil:
    cdef timespec timeout
    waiting.batch = 0
    timeout.tv_sec = 0
    timeout.tv_nsec = min(waiting.coalesce_ns, until_ns - now_ns if until_ns > now_ns else 0)
    ppoll(NULL, 0, &timeout, NULL)


cdef int _look(l45_waiting *waiting, l45_slots *slots, uint64_t until_ns) noexcept nogil:
    cdef int count = -1
    while count <= 0 and monotonic_ns() < until_ns and not load_flag(&waiting.stopping):
        count = receive(waiting, slots, MSG_DONTWAIT)
    return count


cdef bint _poll(l45_waiting *waiting, uint64_t until_ns) noexcept nogil:
    """Whether there is something to read."""
    cdef pollfd waited
    cdef timespec timeout
    cdef uint64_t now_ns = monotonic_ns()
    cdef uint64_t wait_ns = until_ns - now_ns if until_ns > now_ns else 0
    waited.fd = waiting.fd
    waited.events = POLLIN
    timeout.tv_sec = wait_ns // SECOND_NS
    timeout.tv_nsec = wait_ns % SECOND_NS
    return ppoll(&waited, 1, &timeout, NULL) > 0
