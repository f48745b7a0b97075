"""Flows as the control plane sees them, read while their worker runs: single values may be a packet apart.

Entries stay where they are; what they point to does not. A block with modules' state goes when its flow closes: so a
reader shows in `watched` which one it reads, and flow_life.pyx leaves that one for later. A chain goes with its object:
so it is only looked up, by its address, among those that the reader was given.
"""

from layer45.fastpath.core cimport l45_worker

# Up to limit flows. chains: every one that a flow of this worker may have. One reader of a worker at a time.
cdef list flow_view(l45_worker *worker, object chains, size_t limit)
