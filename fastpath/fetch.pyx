"""See fetch.pxd."""

from libc.stdint cimport uint64_t

from layer45.fastpath.abi cimport l45_flow_key, l45_packet
from layer45.fastpath.flow cimport flow_hash, flow_key, l45_entry, l45_flow_table
from layer45.fastpath.packet cimport PARSED, parse
from layer45.fastpath.pool cimport l45_carrier
from layer45.fastpath.receive cimport BATCH

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *) noexcept nogil


cdef void fetch_flows(const l45_flow_table *table, l45_carrier *carriers, int count) noexcept nogil:
    """Step by step: where to look for an entry, what is found there, and what that leads to."""
    cdef uint64_t hashes[BATCH]
    cdef int at, found = 0
    for at in range(count):
        if carriers[at].packet.data != NULL and parse(&carriers[at].packet) == PARSED:
            hashes[found] = _bucket(table, &carriers[at].packet)
            found += 1
    for at in range(found):
        _entry(table, hashes[at])
    for at in range(found):
        _state(table, hashes[at])


cdef inline uint64_t _bucket(const l45_flow_table *table, const l45_packet *packet) noexcept nogil:
    cdef l45_flow_key key
    cdef uint64_t hash
    flow_key(packet, &key)
    hash = flow_hash(table, &key)
    prefetch(&table.buckets[hash & table.bucket_mask])
    return hash


cdef inline void _entry(const l45_flow_table *table, uint64_t hash) noexcept nogil:
    cdef l45_entry *entry = table.buckets[hash & table.bucket_mask]
    if entry != NULL:
        prefetch(entry)
        prefetch(&entry.last_ns)


cdef inline void _state(const l45_flow_table *table, uint64_t hash) noexcept nogil:
    cdef l45_entry *entry = table.buckets[hash & table.bucket_mask]
    if entry == NULL:
        return
    if entry.hash != hash and entry.next != NULL:
        prefetch(entry.next)
        prefetch(&entry.next.last_ns)
    elif entry.state != NULL:
        prefetch(entry.state)
