"""A worker without a queue: tests hand it packets and the time, and see each verdict and each packet it sends."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport l45_verdict
from layer45.fastpath.pool cimport HEAD_ROOM_BYTES, ORIGIN_HELD, ORIGIN_QUEUED, POOL_BUFFER_BYTES, l45_carrier
from layer45.fastpath.worker cimport (
    Worker, worker_advance, worker_close_flows, worker_process, worker_rest,
)


cdef bytes _bytes(const l45_carrier *carrier):
    return carrier.packet.data[:carrier.packet.tail - carrier.packet.data]


cdef void _finish(void *self, l45_carrier *carrier, l45_verdict verdict) noexcept nogil:
    with gil:
        kind = "held" if carrier.packet.origin == ORIGIN_HELD else "clone"
        (<Driver> self).events.append((kind, carrier.queue_id, <int> verdict, _bytes(carrier)))


cdef void _too_big(void *self, l45_carrier *carrier, uint32_t fitting_bytes) noexcept nogil:
    with gil:
        (<Driver> self).events.append(("too_big", carrier.queue_id, fitting_bytes, _bytes(carrier)))


cdef class Driver:
    """events: what came out beside the verdicts, as (kind, queue id, verdict or MTU, bytes)."""
    cdef readonly Worker worker
    cdef public list events
    cdef uint8_t *slot

    def __cinit__(self, Worker worker not None):
        self.worker, self.events = worker, []
        self.slot = <uint8_t *> calloc(1, POOL_BUFFER_BYTES)
        if self.slot == NULL:
            raise MemoryError
        worker.worker.sink.self = <void *> self
        worker.worker.sink.finish = _finish
        worker.worker.sink.too_big = _too_big

    def __dealloc__(self):
        free(self.slot)

    def rest(self) -> None:
        """Takes up the newest class table."""
        worker_rest(&self.worker.worker)

    def advance(self, uint64_t now_ns) -> None:
        worker_advance(&self.worker.worker, now_ns)

    def close(self) -> None:
        worker_close_flows(&self.worker.worker)

    def process(self, bytes packet, uint8_t direction=0, *, uint16_t class_id=1, uint16_t flags=0, uint32_t mtu=0,
                uint32_t queue_id=0) -> tuple[int, bytes]:
        """The verdict, and the packet as it stands in the slot then."""
        cdef l45_carrier carrier
        cdef l45_verdict verdict
        self._fill(&carrier, packet, len(packet))
        carrier.packet.direction = direction
        carrier.packet.class_id = class_id
        carrier.packet.flags = flags
        carrier.mtu = mtu
        carrier.queue_id = queue_id
        verdict = worker_process(&self.worker.worker, &carrier)
        return <int> verdict, _bytes(&carrier)

    def churn(self, bytes packet, uint32_t ports, uint32_t count) -> None:
        """Sends an IPv4 datagram count times, from so many ports in turn, as a queue's thread does: without the
        interpreter lock, and with a rest behind each port."""
        cdef const uint8_t *data = packet
        cdef size_t size = len(packet)
        cdef uint32_t number
        cdef l45_carrier carrier
        with nogil:
            for number in range(count):
                self._fill(&carrier, data, size)
                carrier.packet.class_id = 1
                carrier.packet.data[20] = <uint8_t> (number % ports >> 8)
                carrier.packet.data[21] = <uint8_t> (number % ports)
                worker_rest(&self.worker.worker)
                worker_process(&self.worker.worker, &carrier)

    cdef void _fill(self, l45_carrier *carrier, const uint8_t *packet, size_t size) noexcept nogil:
        memset(carrier, 0, sizeof(l45_carrier))
        carrier.packet.head = self.slot
        carrier.packet.data = self.slot + HEAD_ROOM_BYTES
        carrier.packet.tail = carrier.packet.data + size
        carrier.packet.end = self.slot + POOL_BUFFER_BYTES
        carrier.packet.origin = ORIGIN_QUEUED
        memcpy(carrier.packet.data, packet, size)
