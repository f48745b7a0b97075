"""Packets that modules own, and the services by which they get, keep and return them."""

from libc.stdint cimport uint64_t

from layer45.fastpath.abi cimport L45_PASS, L45_REWRITTEN, l45_host, l45_verdict
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport COUNT_DROPPED, COUNT_PASSED, COUNT_REWRITTEN
from layer45.fastpath.flow cimport l45_entry
from layer45.fastpath.pool cimport l45_owned
from layer45.fastpath.template cimport l45_template

cdef enum timer_kind:
    TIMER_INSTANCE  # owner: the flow's entry
    TIMER_OWNED     # owner: the packet

cdef void host_start(l45_host *host) noexcept nogil
# Runs the rest of the chain on an owned packet, whose module gave it back; a later instance may take it again.
cdef void owned_go_on(l45_worker *worker, l45_owned *owned) noexcept nogil
# Ends what modules left in a flow: for a held packet the policy's on_failure decides, a delayed copy is lost.
cdef void owned_abandon(l45_worker *worker, l45_entry *entry) noexcept nogil
cdef uint64_t random64(l45_worker *worker) noexcept nogil


cdef inline l45_template *template_of(const l45_entry *entry) noexcept nogil:
    """Of a flow whose chain makes packets."""
    return <l45_template *> (entry.state + entry.chain.template_offset)


cdef inline void count_verdict(l45_worker *worker, l45_verdict verdict) noexcept nogil:
    if verdict == L45_PASS:
        worker.counters[COUNT_PASSED] += 1
    elif verdict == L45_REWRITTEN:
        worker.counters[COUNT_REWRITTEN] += 1
    else:
        worker.counters[COUNT_DROPPED] += 1
