"""One worker: what a thread needs to run packets through chains. The queue loop and the replay both drive one."""

from libc.stdint cimport uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_host, l45_verdict
from layer45.fastpath.chain cimport ClassTable, l45_class_table
from layer45.fastpath.counters cimport ENGINE_COUNTERS
from layer45.fastpath.flow cimport l45_flow_table
from layer45.fastpath.pool cimport l45_carrier, l45_pool
from layer45.fastpath.timer cimport l45_wheel

# Where packets go that are not the one being processed. The carrier is the callee's for the length of the call.
cdef struct l45_sink:
    void *self
    # A held packet's late verdict (ORIGIN_HELD: PASS, REWRITTEN or DROP), or a clone to send (ORIGIN_CLONE).
    void (*finish)(void *self, l45_carrier *carrier, l45_verdict verdict) noexcept nogil
    # An egress packet was dropped because it outgrew the MTU: tell its sender the largest packet that fits.
    void (*too_big)(void *self, l45_carrier *carrier, uint32_t fitting_bytes) noexcept nogil

cdef struct l45_worker:
    l45_host host                     # first: a context's host leads back here
    l45_class_table *published        # atomic: set by the control plane
    l45_class_table *current          # atomic: what the worker uses now; set between batches
    l45_flow_table flows
    l45_wheel wheel
    l45_pool pool
    l45_sink sink
    uint64_t now_ns
    uint64_t random_state
    uint32_t index
    uint32_t identification
    uint64_t counters[ENGINE_COUNTERS]

cdef int worker_start(l45_worker *worker, uint32_t index, uint32_t max_flows, uint32_t max_held, uint64_t seed,
                      uint64_t udp_idle_ns, uint64_t tcp_idle_ns) noexcept nogil
cdef void worker_end(l45_worker *worker) noexcept nogil

# Between batches: takes up the newest class table. Nothing of the old one is used afterwards but sticky flows' chains.
cdef void worker_rest(l45_worker *worker) noexcept nogil
# Fires what is due up to now_ns, each at its own deadline, and closes idle flows.
cdef void worker_advance(l45_worker *worker, uint64_t now_ns) noexcept nogil
# The verdict for a packet whose head, data, tail, end, class_id, direction, flags, time_ns and origin are set:
# PASS (send the original), REWRITTEN (send [data, tail)), DROP, or HOLD (nothing now; the sink gets it later).
cdef l45_verdict worker_process(l45_worker *worker, l45_carrier *carrier) noexcept nogil
# Closes every flow; held packets go to the sink.
cdef void worker_close_flows(l45_worker *worker) noexcept nogil


cdef class Worker:
    cdef l45_worker worker
    cdef list tables
    cdef list retired
