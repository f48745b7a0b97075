"""Flows that leave the engine: their chain is done with them, and the kernel is told so by a bit of conntrack's mark.

The rules look for that bit, together with the class, before they lead to a queue: what is left of the flow stays in the
kernel. The bit is that which exempts packets in their own mark. Conntrack is told behind the verdict of the packet that
decided it: before that, it may not have the flow in its table.

A packet of a flow that has left is a straggler, or conntrack has forgotten the bit: another connection has these ports,
or the control plane has taken it back. After STRAGGLERS_NS, and with a SYN, it begins a new flow.
"""

from libc.stdint cimport uint32_t

from layer45.fastpath.abi cimport l45_context, l45_packet
from layer45.fastpath.chain cimport l45_chain
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.flow cimport l45_entry

# The host's service: the instance is done with the flow. 0: the chain does not let go of flows.
cdef int leave_done(l45_context *context) noexcept nogil
# For a packet of a flow that some instance is done with: its entry, that of the flow that it begins anew, or NULL.
cdef l45_entry *leave_look(l45_worker *worker, l45_chain *chain, l45_entry *entry,
                           const l45_packet *packet) noexcept nogil
# Tells conntrack of those that leave; behind the verdicts.
cdef void leave_flush(l45_worker *worker) noexcept nogil


cdef inline bint leave_is_done(const l45_entry *entry, uint32_t at) noexcept nogil:
    """Whether the instance wants no more packets of the flow."""
    return entry.some_done and at < 64 and entry.done >> at & 1
