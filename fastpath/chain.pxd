"""A policy's chain as the engine runs it: immutable once published, but for counters, references, and `disabled`."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport l45_ops, l45_stream
from layer45.fastpath.tcp cimport OFFER_BYTES

cdef enum:
    TRANSPORT_UDP = 1
    TRANSPORT_TCP = 2

# The chain's own counters, in front of its instances' ones.
cdef enum:
    CHAIN_EGRESS_PACKETS
    CHAIN_INGRESS_PACKETS
    CHAIN_EGRESS_BYTES
    CHAIN_INGRESS_BYTES
    CHAIN_EGRESS_FAILED
    CHAIN_INGRESS_FAILED
    CHAIN_BEGUN_SENT
    CHAIN_BEGUN_FAILED
    CHAIN_BYPASSED
    CHAIN_COUNTERS

# What an instance did wrong, behind its own counters.
cdef enum:
    FAULT_ERROR     # answered ERROR
    FAULT_UNSET     # gave no verdict, or held what it did not take
    FAULT_FLOW      # did not open a flow
    FAULTS

cdef struct l45_instance:
    const l45_ops *ops
    void *memory
    uint32_t state_offset       # in the flow's block
    uint32_t counter_offset
    uint32_t fault_offset
    uint8_t runs[2]             # by direction
    const l45_stream *stream    # of a stream module: what it does to TCP; else NULL
    uint32_t stage              # its place among the chain's stages
    uint32_t growth_bytes       # at most so many are inserted for each begun
    uint32_t growth_every       # so many bytes of the stream; 0: none are

cdef struct l45_chain:
    uint32_t class_id
    uint32_t count
    l45_instance *instances
    uint32_t flow_bytes         # timers, then state, then the template
    uint32_t template_offset    # of what made packets look like; 0: no module makes any
    uint32_t counter_count
    uint64_t **counters         # [worker][counter]
    int64_t flows               # atomic: entries of all workers that point here
    uint32_t growth_bytes       # how much longer egress makes a packet at most
    uint32_t emits_bytes        # how much longer packets that egress makes may be than the longest one it lets go
    uint8_t transports
    uint8_t disabled            # atomic: failed too often; packets go round it as if it failed for each
    uint8_t whole_payload       # needs every byte of the packet
    uint8_t fail_closed
    uint8_t signal_mtu          # answer growth beyond the MTU instead of allowing fragments
    uint8_t sticky              # flows keep this chain when the policy gets another
    uint8_t negotiates          # TCP: the peer must run the mirror of this chain
    uint8_t strict              # connections with peers that do not are refused
    uint8_t looks_only          # whatever its modules answer but PASS, and take, is a failure
    uint8_t offer[OFFER_BYTES]
    uint32_t stages             # instances with a stream
    uint32_t connection_offset  # in the flow's block: l45_connection, then the stages
    uint64_t lets_go            # instances that must be done with a flow for it to leave, a bit each; 0: none does
    uint32_t header_growth      # options that the chain adds to each segment

# What a worker reads on each packet; replaced as a whole.
cdef struct l45_class_table:
    uint32_t limit              # classes below this are in range
    l45_chain **chains          # NULL: no policy

# How long the peer's segments may be for what they become on the wire to be no longer than `wire_bytes`.
cdef uint32_t chain_segment_bytes(const l45_chain *chain, uint32_t wire_bytes) noexcept nogil


cdef class Chain:
    cdef l45_chain chain
    cdef readonly str policy
    cdef readonly tuple modules
    cdef readonly tuple counter_names
    cdef readonly tuple flow_counter_names  # of them, those that are kept for each flow too
    cdef list owners

    cdef void _make_counters(self, uint32_t workers) except *
    cdef void _add(self, object spec) except *
    cdef void _add_stage(self, l45_instance *instance, const l45_stream *stream, tuple growth) except *
    cdef void _configure(self, object spec, const l45_ops *ops, void *memory) except *
    cdef uint64_t _total(self, uint32_t counter)


cdef class ClassTable:
    cdef l45_class_table table
    cdef readonly tuple chains
