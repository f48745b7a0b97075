"""A flow's life: opened with its modules' state, closed with all that is theirs."""

from libc.stdint cimport uint32_t

from layer45.fastpath.abi cimport l45_context, l45_packet
from layer45.fastpath.chain cimport l45_chain, l45_instance
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.flow cimport l45_entry
from layer45.fastpath.timer cimport l45_timer

# The packet's flow, opened if it is new or if its policy has another chain now; NULL when a module refused it,
# or a TCP connection finds no room in the map of known ones and must not go on without.
cdef l45_entry *flow_of(l45_worker *worker, l45_chain *chain, const l45_packet *packet) noexcept nogil
# Of a connection that keeps its chain though its policy is gone; else NULL.
cdef l45_chain *flow_chain(l45_worker *worker, const l45_packet *packet) noexcept nogil
# In place of a connection's entry a new one: our kernel begins another one on its ports.
cdef l45_entry *flow_again(l45_worker *worker, l45_chain *chain, l45_entry *entry,
                           const l45_packet *packet) noexcept nogil
# why: the counter to count it in.
cdef void flow_close(l45_worker *worker, l45_entry *entry, int why) noexcept nogil
cdef void flow_tick(l45_worker *worker, l45_entry *entry, l45_timer *timer) noexcept nogil


cdef inline void enter(l45_context *context, l45_worker *worker, l45_entry *entry, uint32_t at) noexcept nogil:
    cdef l45_chain *chain = entry.chain
    cdef l45_instance *instance = &chain.instances[at]
    context.host = &worker.host
    context.instance = instance.memory
    context.state = entry.state + instance.state_offset
    context.counters = chain.counters[worker.index] + instance.counter_offset
    context.flow = &entry.key
    context.now_ns = worker.now_ns
    context.stream = 0
    context.worker = worker
    context.entry = entry
    context.index = at
