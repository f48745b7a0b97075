"""A TCP segment of a connection that needs its peer's agreement: in front of the chain, in a stage, behind the chain.

No segment of a customized connection passes as it came, whatever fails: the peer would take data for what was inserted.
"""

from libc.stdint cimport int64_t

from layer45.fastpath.abi cimport l45_packet, l45_verdict
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.flow cimport l45_entry
from layer45.fastpath.pool cimport l45_carrier

# In front of the chain: PASS, DROP, or ERROR, which `segment_failed` judges.
cdef l45_verdict segment_begin(l45_worker *worker, l45_entry *entry, l45_carrier *carrier) noexcept nogil
# The stage of stream instance `at`; nothing where the connection is not customized. DROP: the segment is not to go on.
cdef l45_verdict segment_stage(l45_worker *worker, l45_entry *entry, int64_t at, l45_packet *packet) noexcept nogil
# Behind the chain, for an edited packet: REWRITTEN and ready to leave, or DROP.
cdef l45_verdict segment_settle(l45_worker *worker, l45_entry *entry, l45_carrier *carrier) noexcept nogil
# Behind the chain, where something failed: whether it is dropped whatever the policy says.
cdef bint segment_failed(l45_worker *worker, const l45_entry *entry) noexcept nogil
