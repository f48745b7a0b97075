"""The flow table: one entry for both directions of a 5-tuple, bounded, oldest evicted.

Entries come from one block set aside at start, of huge pages where the kernel has some: a packet of another flow than
the last finds nothing of it in the caches, and should not have to look for its pages as well. Each worker has its own
table, so nothing here is locked.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_flow_key, l45_packet
from layer45.fastpath.chain cimport l45_chain
from layer45.fastpath.stream cimport l45_connection, l45_stage
from layer45.fastpath.timer cimport l45_timer

# In one order for all threads: a reader shows what it reads before it looks whether that is still there, a worker takes
# it away before it looks whether it is read.
cdef extern from *:
    """
    #define l45_load_ordered(pointer) __atomic_load_n(pointer, __ATOMIC_SEQ_CST)
    #define l45_store_ordered(pointer, value) __atomic_store_n(pointer, value, __ATOMIC_SEQ_CST)
    """
    uint8_t *load_block "l45_load_ordered"(uint8_t **) noexcept nogil
    void store_block "l45_store_ordered"(uint8_t **, uint8_t *) noexcept nogil
    l45_chain *load_chain "l45_load_ordered"(l45_chain **) noexcept nogil

# Of a TCP connection whose chain needs the peer's agreement.
cdef enum connection_phase:
    PHASE_NONE           # any other flow
    PHASE_OPENING        # SYNs are under way
    PHASE_CUSTOMIZED
    PHASE_ALONE          # the peer does not run the chain, or its SYN was not seen: stages leave the connection alone
    PHASE_LOST           # customized, but we have forgotten how: nothing of it passes

cdef enum:
    AGES_UDP, AGES_TCP, AGES_BRIEF, AGE_LISTS

# Three cache lines: what finds it, what each packet looks at, and the rest; closing and some_done spare a look at that.
cdef struct l45_entry:
    l45_flow_key key            # first: modules see an entry as its key
    uint64_t hash
    l45_entry *next             # in the bucket, or in the free list
    uint8_t *state              # atomic: the same block as timers; NULL when the flow is closed, before the block goes
    l45_chain *chain
    uint64_t last_ns
    uint64_t placed_ns          # when it last moved to the young end
    uint64_t packets[2]         # by direction
    uint64_t bytes[2]
    uint8_t came                # its first packet did: another host began it
    uint8_t phase
    uint8_t ages                # its list in the order of use
    uint8_t closing             # its modules' flow_close are being called: see closed
    uint8_t some_done           # done is not 0
    uint8_t left                # conntrack knows that the chain is done with it
    l45_entry *newer            # in the order of use
    l45_entry *older
    uint64_t opened_ns
    uint64_t done               # instances that want no more of its packets, a bit each
    uint64_t asked_ns           # when conntrack was last told so
    l45_timer *timers           # one an instance; start of the block that also holds the modules' state
    void *owned                 # first of the packets that modules took in this flow
    uint32_t closed             # while closing: instances in front of this one have had their flow_close

cdef struct l45_age_list:
    l45_entry *oldest
    l45_entry *newest
    uint64_t idle_ns
    uint64_t step_ns            # how roughly it is kept

cdef struct l45_flow_table:
    l45_entry *entries          # at a cache line
    l45_entry *unused
    l45_entry **buckets
    size_t entry_bytes
    size_t bucket_bytes
    uint64_t bucket_mask
    uint64_t seed
    uint32_t limit
    uint32_t touched            # entries ever used; those behind are pristine
    uint32_t live
    l45_age_list ages[AGE_LISTS]  # those of AGES_BRIEF, connections not begun or ended, go first
    uint8_t *watched            # atomic: the block that another thread reads now, see flow_view.pxd
    uint8_t *leftover           # a block that was watched when its flow closed

cdef int flows_start(l45_flow_table *table, uint32_t limit, uint64_t seed, uint64_t udp_idle_ns,
                     uint64_t tcp_idle_ns) noexcept nogil
cdef void flows_end(l45_flow_table *table) noexcept nogil
cdef void flow_key(const l45_packet *packet, l45_flow_key *key) noexcept nogil
cdef uint64_t flow_hash(const l45_flow_table *table, const l45_flow_key *key) noexcept nogil
cdef l45_entry *flow_find(l45_flow_table *table, const l45_flow_key *key, uint64_t hash) noexcept nogil
# The entry of a parsed packet, or NULL.
cdef l45_entry *flow_seek(l45_flow_table *table, const l45_packet *packet) noexcept nogil
cdef l45_entry *flow_insert(l45_flow_table *table, const l45_flow_key *key, uint64_t hash,
                            uint64_t now_ns) noexcept nogil
cdef void flow_remove(l45_flow_table *table, l45_entry *entry) noexcept nogil
cdef void flow_touch(l45_flow_table *table, l45_entry *entry, uint64_t now_ns) noexcept nogil
cdef l45_entry *flow_victim(l45_flow_table *table) noexcept nogil
cdef l45_entry *flow_oldest(l45_flow_table *table) noexcept nogil
cdef void flow_set_ages(l45_flow_table *table, l45_entry *entry, uint8_t ages) noexcept nogil
cdef l45_entry *flow_idle(l45_flow_table *table, uint64_t now_ns) noexcept nogil


cdef inline l45_connection *connection_of(const l45_entry *entry) noexcept nogil:
    """Of an entry with a phase."""
    return <l45_connection *> (entry.state + entry.chain.connection_offset)


cdef inline l45_stage *stages_of(const l45_entry *entry) noexcept nogil:
    """One for each stream instance of its chain, first to last."""
    return <l45_stage *> (entry.state + entry.chain.connection_offset + sizeof(l45_connection))
