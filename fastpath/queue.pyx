"""The queue loop: one thread, one queue, one worker; no interpreter lock while packets flow.

1. recvmmsg: a batch; it sleeps until there is one, or ppoll does where a timer is near.   2. Take up a new class table,
fire timers.   3. Each packet: worker_process, verdict packed.   4. One sendmsg with all verdicts.   5. Nothing to read,
or too long not: one sendmmsg with all injected packets: they leave behind what waited in the queue.   6. Where packets
come fast, a nap, so that the next batch is worth its system calls.

NetfilterQueue binds the queue and owns its descriptor; the loop drains it. Everything here but `wake` and `stop` runs
in the loop's thread. The same loop drains an NFLOG group (copies.pyx): no verdicts then, and nothing to inject.
"""

import fcntl
import socket

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from layer45.fastpath.abi cimport L45_DROP, L45_EGRESS, L45_HOLD, L45_REWRITTEN, l45_context, l45_verdict
from layer45.fastpath.copies cimport copies_look
from layer45.fastpath.counters cimport *
from layer45.fastpath.device cimport device_mtu, l45_devices
from layer45.fastpath.fetch cimport MANY_FLOWS, fetch_flows
from layer45.fastpath.inject cimport (
    inject, inject_too_big, injector_end, injector_flush, injector_pressed, injector_start, injector_waits,
    l45_injector,
)
from layer45.fastpath.leave cimport leave_flush
from layer45.fastpath.netlink cimport *
from layer45.fastpath.path cimport destination, path_mtu, source
from layer45.fastpath.pool cimport ORIGIN_HELD, l45_carrier
from layer45.fastpath.receive cimport (
    BATCH, MESSAGE_ERROR, MESSAGE_PACKET, MESSAGE_UNREADABLE, l45_marks, l45_slots, marks_start, message_kind,
    read_message, slots_end, slots_start,
)
from layer45.fastpath.timer cimport wheel_next_ns
from layer45.fastpath.verdict cimport (
    l45_verdicts, verdict_accept, verdict_add, verdicts_end, verdicts_flush, verdicts_start,
)
from layer45.fastpath.waiting cimport l45_waiting, load_flag, receive, store_flag, wait_for_batch, waiting_batch
from layer45.fastpath.worker cimport (
    Worker, l45_worker, worker_advance, worker_close_flows, worker_process, worker_rest,
)

from netfilterqueue import COPY_PACKET, NetfilterQueue

from layer45.fastpath.copies import Group, room_bytes
from layer45.fastpath.sockets import (
    BUFFER_BYTES, configure, echo, netlink_socket, raw_socket, raw_socket_or_none, set_up,
)

cdef extern from "<unistd.h>" nogil:
    int close(int)

cdef extern from "<sys/prctl.h>" nogil:
    enum:
        PR_SET_TIMERSLACK
    int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)

cdef enum:
    DRAIN_LIMIT_NS = 100000000     # how long a stopping loop goes on emptying its queue
    INJECT_WAIT_NS = 300000        # what is in the queue goes before copies, but no longer than this

cdef struct l45_loop:
    l45_worker *worker
    l45_slots slots
    l45_verdicts verdicts
    l45_injector injector
    l45_marks marks
    l45_devices devices
    l45_carrier carriers[BATCH]
    message_kind kinds[BATCH]
    uint64_t inject_by_ns
    l45_waiting waiting
    bint copies
    uint32_t next_copy      # its number


# --- the loop -------------------------------------------------------------------------------------------------------

cdef void _loop(l45_loop *loop) noexcept nogil:
    cdef int count
    while not load_flag(&loop.waiting.stopping):
        count = _next(loop)
        _turn(loop, monotonic_ns())
        if count > 0:
            _batch(loop, count)
    _drain(loop)
    worker_close_flows(loop.worker)
    _flush(loop)


cdef inline void _turn(l45_loop *loop, uint64_t now_ns) noexcept nogil:
    worker_rest(loop.worker)
    worker_advance(loop.worker, now_ns)
    _flush_verdicts(loop)
    if now_ns > loop.inject_by_ns:
        injector_flush(&loop.injector)
        loop.inject_by_ns = now_ns + INJECT_WAIT_NS


cdef inline void _flush_verdicts(l45_loop *loop) noexcept nogil:
    verdicts_flush(&loop.verdicts)
    if loop.worker.leaving:
        leave_flush(loop.worker)


cdef inline void _flush(l45_loop *loop) noexcept nogil:
    """Verdicts first: a connection whose first packet is a copy of ours would not have its policy's mark, and its
    replies would pass us by."""
    _flush_verdicts(loop)
    injector_flush(&loop.injector)


cdef void _batch(l45_loop *loop, int count) noexcept nogil:
    cdef int at
    waiting_batch(&loop.waiting, count, loop.worker.now_ns)
    if loop.copies:
        for at in range(count):
            copies_look(loop.worker, &loop.slots, at, &loop.marks, &loop.next_copy)
    else:
        _packets(loop, count)
    loop.worker.counters[COUNT_BATCHES] += 1
    _flush_verdicts(loop)


cdef void _packets(l45_loop *loop, int count) noexcept nogil:
    cdef int at
    for at in range(count):
        loop.kinds[at] = read_message(&loop.slots, at, &loop.marks, &loop.carriers[at])
    if loop.worker.flows.live > MANY_FLOWS:
        fetch_flows(&loop.worker.flows, loop.carriers, count)
    for at in range(count):
        _message(loop, loop.kinds[at], &loop.carriers[at])
        if injector_pressed(&loop.injector):
            _flush(loop)


cdef void _message(l45_loop *loop, message_kind kind, l45_carrier *carrier) noexcept nogil:
    cdef l45_verdict verdict
    if kind == MESSAGE_ERROR:
        loop.worker.counters[COUNT_KERNEL_ERRORS] += 1
        return
    if kind == MESSAGE_UNREADABLE:
        return
    if kind == MESSAGE_PACKET:
        carrier.packet.time_ns = loop.worker.now_ns
        if carrier.ifindex:
            carrier.mtu = device_mtu(&loop.devices, loop.injector.fds[0], carrier.ifindex, loop.worker.now_ns)
        verdict = worker_process(loop.worker, carrier)
        if verdict == L45_HOLD:
            return
        _give(loop, carrier, verdict, True)
        if loop.worker.cut:
            loop.worker.cut = False
            _flush(loop)
        return
    loop.worker.counters[COUNT_RECEIVED] += 1
    loop.worker.counters[COUNT_PASSED] += 1
    loop.worker.counters[COUNT_MALFORMED] += 1
    verdict_accept(&loop.verdicts, carrier.queue_id, False)


cdef inline void _give(l45_loop *loop, l45_carrier *carrier, l45_verdict verdict, bint stays) noexcept nogil:
    if verdict == L45_REWRITTEN:
        verdict_add(&loop.verdicts, carrier.queue_id, NF_ACCEPT, carrier.packet.data,
                    carrier.packet.tail - carrier.packet.data, stays)
    elif verdict == L45_DROP:
        verdict_add(&loop.verdicts, carrier.queue_id, NF_DROP, NULL, 0, True)
    else:
        verdict_accept(&loop.verdicts, carrier.queue_id, loop.worker.counters[COUNT_HELD] == 0)


cdef void _finish(void *self, l45_carrier *carrier, l45_verdict verdict) noexcept nogil:
    """The worker's sink. A clone can leave the host, but there is no way to put one into a local socket's ingress."""
    cdef l45_loop *loop = <l45_loop *> self
    if carrier.packet.origin == ORIGIN_HELD:
        _give(loop, carrier, verdict, False)
    elif carrier.packet.direction == L45_EGRESS:
        inject(&loop.injector, carrier)
    else:
        loop.worker.counters[COUNT_INJECT_ERRORS] += 1


cdef uint64_t _clock_ns(l45_context *context) noexcept nogil:
    return monotonic_ns()


cdef void _too_big(void *self, l45_carrier *carrier, uint32_t fitting_bytes) noexcept nogil:
    cdef l45_loop *loop = <l45_loop *> self
    loop.worker.counters[COUNT_TOO_BIG_SIGNALLED] += 1
    inject_too_big(&loop.injector, carrier, fitting_bytes)


cdef uint32_t _path_mtu(void *self, const l45_carrier *carrier) noexcept nogil:
    cdef l45_loop *loop = <l45_loop *> self
    cdef const uint8_t *packet = carrier.packet.data
    cdef int fd = loop.injector.fds[1 if carrier.packet.ip_version == 6 else 0]
    return path_mtu(fd, carrier.packet.ip_version,
                    destination(packet) if carrier.packet.direction == L45_EGRESS else source(packet), carrier.ifindex)


cdef int _next(l45_loop *loop) noexcept nogil:
    """The next batch, when there is one; see wait_for_batch. Copies leave behind what waits in the queue."""
    cdef int count
    if injector_waits(&loop.injector):
        count = receive(&loop.waiting, &loop.slots, MSG_DONTWAIT)
        if count > 0:
            return count
        injector_flush(&loop.injector)
    return wait_for_batch(&loop.waiting, &loop.slots, loop.worker.now_ns, wheel_next_ns(&loop.worker.wheel))


cdef void _drain(l45_loop *loop) noexcept nogil:
    """Empties the queue, for a bounded time: what is left when it is closed is dropped by the kernel."""
    cdef uint64_t until_ns = monotonic_ns() + DRAIN_LIMIT_NS
    cdef uint64_t now_ns = monotonic_ns()
    cdef int count = 1
    while count > 0 and now_ns < until_ns:
        count = receive(&loop.waiting, &loop.slots, MSG_DONTWAIT)
        _turn(loop, now_ns)
        if count > 0:
            _batch(loop, count)
        now_ns = monotonic_ns()


# --- its life ---------------------------------------------------------------------------------------------------------

cdef class QueueLoop:
    """Binds a queue and drains it through a worker.

    queue: its number. copy_bytes: how much of each packet the kernel copies. gso: super-packets come whole.
    fail_open: packets that find the queue full pass uncustomized. length: packets the kernel keeps.
    class_mask: our class's bits in packet marks. exempt_mark: the mark of injected packets. busy_poll_us: how long
    the loop looks for packets before it sleeps. coalesce_us: how long it lets packets come together, where many may
    be expected meanwhile. copies: it is no queue but an NFLOG
    group; then gso, fail_open and length say nothing.
    OSError when the queue is in use by another program or the process lacks the privilege.
    """
    cdef l45_loop loop
    cdef readonly Worker worker
    cdef readonly int queue
    cdef object binding

    def __cinit__(self, *args, **kwargs):
        memset(&self.loop, 0, sizeof(self.loop))
        self.loop.injector.fds[0] = -1
        self.loop.injector.fds[1] = -1

    def __init__(self, Worker worker, int queue, *, uint32_t copy_bytes, bint gso, bint fail_open, int length,
                 uint32_t class_mask, uint32_t exempt_mark, uint32_t busy_poll_us=0,
                 uint32_t coalesce_us=0, bint copies=False):
        self.worker = worker
        self.queue = queue
        self.loop.worker = &worker.worker
        self.loop.waiting.busy_ns = <uint64_t> busy_poll_us * 1000
        self.loop.waiting.coalesce_ns = <uint64_t> coalesce_us * 1000
        self.loop.waiting.overruns = &worker.worker.counters[COUNT_KERNEL_OVERRUNS]
        marks_start(&self.loop.marks, class_mask)
        self.loop.copies = copies
        if slots_start(&self.loop.slots, room_bytes(copy_bytes) if copies else copy_bytes) != 0:
            raise MemoryError(f"no memory for queue {queue}")
        worker.worker.conntrack.fd = netlink_socket()
        worker.worker.conntrack.bit = exempt_mark
        if copies:
            self.binding = Group(queue, copy_bytes)
            self.loop.waiting.fd = self.binding.get_fd()
        else:
            self._start_injector(exempt_mark)
            self._bind(copy_bytes, gso, fail_open, length)
        worker.worker.sink.self = &self.loop
        worker.worker.sink.finish = _finish
        worker.worker.sink.too_big = _too_big
        worker.worker.sink.path_mtu = _path_mtu
        worker.worker.host.clock_ns = _clock_ns

    def _start_injector(self, uint32_t exempt_mark):
        self.loop.injector.fds[0] = raw_socket(socket.AF_INET, exempt_mark)
        self.loop.injector.fds[1] = raw_socket_or_none(socket.AF_INET6, exempt_mark)
        if injector_start(&self.loop.injector, self.loop.injector.fds[0], self.loop.injector.fds[1],
                          &self.worker.worker.counters[COUNT_INJECTED],
                          &self.worker.worker.counters[COUNT_INJECT_ERRORS]) != 0:
            raise MemoryError

    def _bind(self, uint32_t copy_bytes, bint gso, bint fail_open, int length):
        binding = NetfilterQueue()
        early = _accept if fail_open else _drop
        binding.bind(self.queue, early, max_len=length, mode=COPY_PACKET, range=copy_bytes, sock_len=BUFFER_BYTES)
        self.binding = binding
        self.loop.waiting.fd = binding.get_fd()
        set_up(self.loop.waiting.fd)
        configure(self.loop.waiting.fd, self.queue, copy_bytes, fail_open, gso)
        fcntl.fcntl(self.loop.waiting.fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        if verdicts_start(&self.loop.verdicts, self.loop.waiting.fd, self.queue,
                          &self.worker.worker.counters[COUNT_VERDICT_ERRORS]) != 0:
            raise MemoryError

    def run(self) -> None:
        """Drains the queue until `stop`; call in a thread of its own."""
        with nogil:
            prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # or a nap takes 50 us more
            _loop(&self.loop)

    def wake(self) -> None:
        """Makes a sleeping loop look for a new class table, by a message that the kernel answers; from any thread."""
        echo(self.loop.waiting.fd)

    def stop(self) -> None:
        """Asks `run` to empty the queue and return; from any thread."""
        if self.loop.copies:
            self.binding.finish()
        store_flag(&self.loop.waiting.stopping, 1)
        self.wake()

    def close(self) -> None:
        """Gives the queue back to the kernel, which drops what still waits in it; only when `run` has returned."""
        if self.binding is not None:
            self.binding.unbind()
            self.binding = None
        self._free()

    cdef void _free(self):
        verdicts_end(&self.loop.verdicts)
        injector_end(&self.loop.injector)
        slots_end(&self.loop.slots)
        if self.loop.worker != NULL and self.worker.worker.conntrack.fd >= 0:
            close(self.worker.worker.conntrack.fd)
            self.worker.worker.conntrack.fd = -1

    def __dealloc__(self):
        self._free()


def _accept(packet) -> None:
    """For packets that reach NetfilterQueue's own reader while it binds, those of closed policies excepted."""
    packet.accept()


def _drop(packet) -> None:
    packet.drop()
