"""When a chain cannot do its work: what is counted, and what becomes of the packet.

A failure is an answer of a module that is no verdict, ERROR, or a flow that it did not open. It counts for its instance
and for its chain, unless the packet was too long: that is nobody's fault. A chain that the control plane finds to fail
too often is disabled; so that nobody out there can bring that about, packets that are sent in flows that this host
began are counted apart. What is sent in others may be an echo of what came, and memory for flows may be used up.
"""

from libc.stdint cimport int64_t, uint32_t

from layer45.fastpath.abi cimport l45_packet, l45_verdict
from layer45.fastpath.chain cimport l45_chain
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.flow cimport l45_entry
from layer45.fastpath.pool cimport l45_carrier

# The policy's on_failure for one packet; an open one sends the original bytes.
cdef l45_verdict failed(l45_worker *worker, const l45_chain *chain) noexcept nogil
# What instance `at` said, if not that the packet goes on: DROP, HOLD when the packet is gone, or ERROR, counted.
cdef l45_verdict refused(l45_worker *worker, const l45_entry *entry, int64_t at, const l45_carrier *carrier,
                         uint32_t serial, l45_verdict verdict) noexcept nogil
# A packet whose flow was not opened: as failed, but a strict chain passes no connection as it is.
cdef l45_verdict flow_refused(l45_worker *worker, l45_chain *chain, const l45_packet *packet) noexcept nogil
# Of a disabled chain: whether the packet does not go through it. Those of connections that their peer customizes, too,
# do, until these are closed.
cdef bint goes_round(l45_worker *worker, const l45_chain *chain, const l45_carrier *carrier) noexcept nogil
# The verdict for such a packet.
cdef l45_verdict go_round(l45_worker *worker, const l45_chain *chain, const l45_packet *packet) noexcept nogil
