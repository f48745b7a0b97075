"""One worker's memory, and where its packets go. worker.pyx says what is done with it."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_flow_key, l45_host, l45_verdict
from layer45.fastpath.arena cimport l45_arena
from layer45.fastpath.chain cimport l45_class_table
from layer45.fastpath.conntrack cimport l45_conntrack
from layer45.fastpath.counters cimport ENGINE_COUNTERS
from layer45.fastpath.flow cimport l45_entry, l45_flow_table
from layer45.fastpath.known cimport l45_known
from layer45.fastpath.pool cimport l45_carrier, l45_pool
from layer45.fastpath.timer cimport l45_wheel

cdef enum:
    LEAVE_LIMIT = 64                  # flows that conntrack is told of at once; others ask again with their next packet

# Where packets go that are not the one being processed. The carrier is the callee's for the length of the call.
cdef struct l45_sink:
    void *self
    # A held packet's late verdict (ORIGIN_HELD: PASS, REWRITTEN or DROP), or a clone to send (ORIGIN_CLONE).
    void (*finish)(void *self, l45_carrier *carrier, l45_verdict verdict) noexcept nogil
    # An egress packet was dropped because it outgrew the MTU: tell its sender the largest packet that fits.
    void (*too_big)(void *self, l45_carrier *carrier, uint32_t fitting_bytes) noexcept nogil
    # The MTU of the path between our host and the packet's other one, as far as it is known; 0: it is not.
    uint32_t (*path_mtu)(void *self, const l45_carrier *carrier) noexcept nogil

cdef struct l45_worker:
    l45_host host
    l45_class_table *published        # atomic: set by the control plane
    l45_class_table *current          # atomic: what the worker uses now; set between batches
    l45_flow_table flows
    l45_wheel wheel
    l45_pool pool
    l45_arena arena
    l45_sink sink
    l45_known known                   # the map of connections that streams tell of
    l45_conntrack conntrack           # that is told of flows that leave; none in a replay, where they stay
    uint32_t leaving                  # such flows
    l45_flow_key leaving_keys[LEAVE_LIMIT]
    uint64_t now_ns
    uint64_t random_state
    uint32_t index
    uint32_t identification
    uint8_t *piece                    # room for one packet: what is cut off another one, while it is sent
    uint8_t cut                       # a packet was cut since the queue looked: its pieces must go right behind it
    uint64_t counters[ENGINE_COUNTERS]
    # The chain from instance at on: PASS, DROP, HOLD or ERROR. And what is to be done after that answer, with the
    # packet ready to leave. Pointers, so that owned.pyx can call back into worker.pyx.
    l45_verdict (*run)(l45_worker *worker, l45_carrier *carrier, l45_entry *entry, int64_t at) noexcept nogil
    l45_verdict (*settle)(l45_worker *worker, l45_carrier *carrier, l45_entry *entry,
                          l45_verdict verdict) noexcept nogil
