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
        memset(&carrier, 0, sizeof(carrier))
        carrier.packet.head = self.slot
        carrier.packet.data = self.slot + HEAD_ROOM_BYTES
        carrier.packet.tail = carrier.packet.data + len(packet)
        carrier.packet.end = self.slot + POOL_BUFFER_BYTES
        memcpy(carrier.packet.data, <const uint8_t *> packet, len(packet))
        carrier.packet.direction = direction
        carrier.packet.class_id = class_id
        carrier.packet.flags = flags
        carrier.packet.origin = ORIGIN_QUEUED
        carrier.mtu = mtu
        carrier.queue_id = queue_id
        verdict = worker_process(&self.worker.worker, &carrier)
        return <int> verdict, _bytes(&carrier)
