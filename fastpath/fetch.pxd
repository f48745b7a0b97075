"""Among very many flows: those of a batch into the caches, all at once. One by one, each would be waited for."""

from layer45.fastpath.flow cimport l45_flow_table
from layer45.fastpath.pool cimport l45_carrier

cdef enum:
    MANY_FLOWS = 4096       # more than the nearest caches hold; with fewer, fetching costs more than it spares

# Carriers without a packet are left out.
cdef void fetch_flows(const l45_flow_table *table, l45_carrier *carriers, int count) noexcept nogil
