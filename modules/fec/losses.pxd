"""What the receiver tells of losses, and what the sender makes of it: both ends of `adaptive`."""

from libc.stdint cimport uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_verdict
from layer45.modules.fec.state cimport in_block

# A block has ended, of which `size` source datagrams were sent, as far as it is known.
cdef void losses_of(l45_context *context, const in_block *block, uint32_t size) noexcept nogil
# A block is over of which nothing came.
cdef void losses_of_all(l45_context *context, uint32_t size) noexcept nogil
# Sends a report that is due, and tells when to call again.
cdef uint64_t report_due(l45_context *context) noexcept nogil
# A datagram that looks like a report ends here, whatever comes of it.
cdef l45_verdict report_take(l45_context *context, const l45_packet *packet) noexcept nogil
