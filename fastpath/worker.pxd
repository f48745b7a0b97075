"""One worker: what a thread needs to run packets through chains. The queue loop and the replay both drive one."""

from libc.stdint cimport uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_verdict
from layer45.fastpath.core cimport l45_sink, l45_worker
from layer45.fastpath.pool cimport l45_carrier

cdef int worker_start(l45_worker *worker, uint32_t index, uint32_t max_flows, uint32_t max_held,
                      size_t memory_bytes, uint64_t seed, uint64_t udp_idle_ns, uint64_t tcp_idle_ns) noexcept nogil
cdef void worker_end(l45_worker *worker) noexcept nogil

# Between batches: takes up the newest class table. Nothing of the old one is used afterwards but sticky flows' chains.
cdef void worker_rest(l45_worker *worker) noexcept nogil
# Fires what is due up to now_ns, each at its own deadline, and closes idle flows.
cdef void worker_advance(l45_worker *worker, uint64_t now_ns) noexcept nogil
# The verdict for a packet whose head, data, tail, end, wire_bytes, class_id, direction, flags, time_ns and origin are
# set:
# PASS (send the original), REWRITTEN (send [data, tail)), DROP, or HOLD (nothing now; the sink gets it later).
cdef l45_verdict worker_process(l45_worker *worker, l45_carrier *carrier) noexcept nogil
# Closes every flow; held packets go to the sink.
cdef void worker_close_flows(l45_worker *worker) noexcept nogil


cdef class Worker:
    cdef l45_worker worker
    cdef list tables
    cdef list retired
