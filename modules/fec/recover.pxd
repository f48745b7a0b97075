"""Lost datagrams made anew from a block that has enough symbols."""

from libc.stdint cimport uint32_t

from layer45.fastpath.abi cimport l45_context, l45_packet, l45_verdict
from layer45.modules.fec.state cimport in_block

# Ends the block. last: the repair that has just come, if it was one; the answer is its verdict. owned: it is held.
cdef l45_verdict recover(l45_context *context, in_block *block, l45_packet *last, uint32_t esi,
                         bint owned) noexcept nogil
