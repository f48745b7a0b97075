"""See flow.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from layer45.fastpath.abi cimport L45_EGRESS, l45_flow_key, l45_packet
from layer45.fastpath.packet cimport PROTOCOL_TCP
from layer45.fastpath.splitmix cimport mixed

cdef extern from *:
    """
    #include <stdint.h>
    #include <sys/mman.h>

    enum { L45_HUGE_BYTES = 2 << 20 };

    /* Zeroed memory at a huge page's boundary, touched as it is used; NULL when there is none. */
    static void *l45_map(size_t bytes) {
        uint8_t *whole = mmap(NULL, bytes + L45_HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        size_t front;
        if (whole == MAP_FAILED)
            return NULL;
        front = -(uintptr_t) whole & (L45_HUGE_BYTES - 1);
        if (front)
            munmap(whole, front);
        if (front < L45_HUGE_BYTES)
            munmap(whole + front + bytes, L45_HUGE_BYTES - front);
        madvise(whole + front, bytes, MADV_HUGEPAGE);  /* where it is refused, small ones do */
        return whole + front;
    }

    static void l45_unmap(void *memory, size_t bytes) {
        if (memory)
            munmap(memory, bytes);
    }
    """
    void *l45_map(size_t bytes) noexcept nogil
    void l45_unmap(void *memory, size_t bytes) noexcept nogil

cdef enum:
    # An entry in use moves to the young end so often in its idle time: each move touches its neighbours' memory.
    AGE_STEPS = 16
    SECOND_CHANCES = 8            # entries that are looked at for one to evict
    BRIEF_IDLE_NS = 120000000000  # longer than SYNs are sent again, and than TIME_WAIT lasts


cdef int flows_start(l45_flow_table *table, uint32_t limit, uint64_t seed, uint64_t udp_idle_ns,
                     uint64_t tcp_idle_ns) noexcept nogil:
    """Sets aside room for limit flows; 0, or -1 when there is no memory. Pages are touched as flows come."""
    cdef uint64_t buckets = 16
    cdef int which
    while buckets < limit:
        buckets <<= 1
    memset(table, 0, sizeof(l45_flow_table))
    table.entry_bytes = limit * sizeof(l45_entry)
    table.bucket_bytes = buckets * sizeof(l45_entry *)
    table.entries = <l45_entry *> l45_map(table.entry_bytes)
    table.buckets = <l45_entry **> l45_map(table.bucket_bytes)
    if table.entries == NULL or table.buckets == NULL:
        flows_end(table)
        return -1
    table.bucket_mask = buckets - 1
    table.seed = seed
    table.limit = limit
    table.ages[AGES_UDP].idle_ns = udp_idle_ns
    table.ages[AGES_TCP].idle_ns = tcp_idle_ns
    table.ages[AGES_BRIEF].idle_ns = min(tcp_idle_ns, <uint64_t> BRIEF_IDLE_NS)
    for which in range(<int> AGE_LISTS):
        table.ages[which].step_ns = table.ages[which].idle_ns // AGE_STEPS
    return 0


cdef void flows_end(l45_flow_table *table) noexcept nogil:
    l45_unmap(table.entries, table.entry_bytes)
    l45_unmap(table.buckets, table.bucket_bytes)
    free(table.leftover)
    table.entries = NULL
    table.buckets = NULL
    table.leftover = NULL


cdef inline void _address(const l45_packet *packet, bint source, uint8_t *into) noexcept nogil:
    if packet.ip_version == 6:
        memcpy(into, packet.data + (8 if source else 24), 16)
        return
    memset(into, 0, 10)
    into[10] = 0xFF
    into[11] = 0xFF
    memcpy(into + 12, packet.data + (12 if source else 16), 4)


cdef void flow_key(const l45_packet *packet, l45_flow_key *key) noexcept nogil:
    """The key of a parsed packet: local is the source on egress and the destination on ingress."""
    cdef bint egress = packet.direction == L45_EGRESS
    cdef const uint8_t *ports = packet.data + packet.l4_offset
    _address(packet, egress, key.local)
    _address(packet, not egress, key.remote)
    memcpy(&key.local_port_be, ports + (0 if egress else 2), 2)
    memcpy(&key.remote_port_be, ports + (2 if egress else 0), 2)
    key.class_id = packet.class_id
    key.protocol = packet.protocol
    key.reserved = 0


cdef uint64_t flow_hash(const l45_flow_table *table, const l45_flow_key *key) noexcept nogil:
    """A keyed hash, so that nobody on the wire can aim at one bucket."""
    cdef uint64_t word, total = table.seed
    cdef size_t at
    for at in range(0, sizeof(l45_flow_key), 8):
        memcpy(&word, <const uint8_t *> key + at, 8)
        total = mixed(total ^ word) + table.seed
    return total


cdef l45_entry *flow_find(l45_flow_table *table, const l45_flow_key *key, uint64_t hash) noexcept nogil:
    cdef l45_entry *entry = table.buckets[hash & table.bucket_mask]
    while entry != NULL:
        if entry.hash == hash and memcmp(&entry.key, key, sizeof(l45_flow_key)) == 0:
            return entry
        entry = entry.next
    return NULL


cdef l45_entry *flow_seek(l45_flow_table *table, const l45_packet *packet) noexcept nogil:
    cdef l45_flow_key key
    flow_key(packet, &key)
    return flow_find(table, &key, flow_hash(table, &key))


cdef l45_entry *flow_insert(l45_flow_table *table, const l45_flow_key *key, uint64_t hash,
                            uint64_t now_ns) noexcept nogil:
    """A new zeroed entry, the youngest; NULL when the table is full (evict one first)."""
    cdef l45_entry *entry = table.unused
    if entry != NULL:
        table.unused = entry.next
        memset(entry, 0, sizeof(l45_entry))
    elif table.touched < table.limit:
        entry = &table.entries[table.touched]
        table.touched += 1
    else:
        return NULL
    entry.key = key[0]
    entry.hash = hash
    entry.opened_ns = now_ns
    entry.last_ns = now_ns
    entry.placed_ns = now_ns
    entry.next = table.buckets[hash & table.bucket_mask]
    table.buckets[hash & table.bucket_mask] = entry
    entry.ages = AGES_TCP if key.protocol == PROTOCOL_TCP else AGES_UDP
    _append(&table.ages[entry.ages], entry)
    table.live += 1
    return entry


cdef void flow_remove(l45_flow_table *table, l45_entry *entry) noexcept nogil:
    """Gives the entry back; its chain, state and packets must be gone already."""
    cdef l45_entry **link = &table.buckets[entry.hash & table.bucket_mask]
    while link[0] != entry:
        link = &link[0].next
    link[0] = entry.next
    _unlink(&table.ages[entry.ages], entry)
    entry.chain = NULL
    entry.next = table.unused
    table.unused = entry
    table.live -= 1


cdef void flow_touch(l45_flow_table *table, l45_entry *entry, uint64_t now_ns) noexcept nogil:
    """Notes a packet; the order of age is kept roughly."""
    cdef l45_age_list *ages = &table.ages[entry.ages]
    entry.last_ns = now_ns
    if now_ns - entry.placed_ns >= ages.step_ns and entry != ages.newest:
        _place(ages, entry)


cdef inline void _place(l45_age_list *ages, l45_entry *entry) noexcept nogil:
    _unlink(ages, entry)
    _append(ages, entry)
    entry.placed_ns = entry.last_ns


cdef l45_entry *flow_victim(l45_flow_table *table) noexcept nogil:
    """The entry to evict, of those used longest ago; what was used since it was placed is placed again."""
    cdef l45_entry *entry = flow_oldest(table)
    cdef int _chance
    for _chance in range(<int> SECOND_CHANCES):
        if entry.last_ns == entry.placed_ns:
            return entry
        _place(&table.ages[entry.ages], entry)
        entry = flow_oldest(table)
    return entry


cdef l45_entry *flow_oldest(l45_flow_table *table) noexcept nogil:
    """The first entry to go, roughly; NULL in an empty table. A flood of SYNs finds no place among what lives."""
    cdef l45_entry *udp = table.ages[AGES_UDP].oldest
    cdef l45_entry *tcp = table.ages[AGES_TCP].oldest
    if table.ages[AGES_BRIEF].oldest != NULL:
        return table.ages[AGES_BRIEF].oldest
    if udp == NULL or tcp == NULL:
        return tcp if udp == NULL else udp
    return udp if udp.placed_ns <= tcp.placed_ns else tcp


cdef l45_entry *flow_idle(l45_flow_table *table, uint64_t now_ns) noexcept nogil:
    """An entry whose idle time is over, or NULL; one may stay longer by the step of the order of age."""
    cdef l45_entry *entry
    cdef int which
    for which in range(<int> AGE_LISTS):
        entry = table.ages[which].oldest
        if entry != NULL and entry.last_ns + table.ages[which].idle_ns <= now_ns:
            return entry
    return NULL


cdef void flow_set_ages(l45_flow_table *table, l45_entry *entry, uint8_t ages) noexcept nogil:
    """Moves the entry to the young end of another list."""
    if ages == entry.ages:
        return
    _unlink(&table.ages[entry.ages], entry)
    entry.ages = ages
    _append(&table.ages[ages], entry)
    entry.placed_ns = entry.last_ns


cdef inline void _append(l45_age_list *ages, l45_entry *entry) noexcept nogil:
    entry.newer = NULL
    entry.older = ages.newest
    if ages.newest != NULL:
        ages.newest.newer = entry
    else:
        ages.oldest = entry
    ages.newest = entry


cdef inline void _unlink(l45_age_list *ages, l45_entry *entry) noexcept nogil:
    if entry.older != NULL:
        entry.older.newer = entry.newer
    else:
        ages.oldest = entry.newer
    if entry.newer != NULL:
        entry.newer.older = entry.older
    else:
        ages.newest = entry.older
