"""Sets a bit in conntrack's mark of a flow, by netlink: one message, answered before the call returns.

linux/netfilter/nfnetlink_conntrack.h. A few microseconds for a flow.
"""

from libc.stdint cimport uint32_t

from layer45.fastpath.abi cimport l45_flow_key

cdef struct l45_conntrack:
    int fd                      # a netlink socket of the caller's; -1: there is none
    uint32_t bit

# 0, or an error number; ENOENT: conntrack does not have the flow.
cdef int conntrack_mark(const l45_conntrack *conntrack, const l45_flow_key *key) noexcept nogil
