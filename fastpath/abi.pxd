"""abi.h for Cython: see there for meaning, ownership and threads."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "abi.h" nogil:
    enum:
        L45_ABI_VERSION
    uint64_t L45_NEVER
    const char *L45_OPS_CAPSULE

    ctypedef enum l45_verdict:
        L45_UNSET
        L45_PASS
        L45_REWRITTEN
        L45_DROP
        L45_HOLD
        L45_ERROR

    enum:
        L45_EGRESS
        L45_INGRESS

    enum:
        L45_EDITED
        L45_SUMMED
        L45_NO_SUM
        L45_PARTIAL
        L45_GSO
        L45_TRUNCATED
        L45_AGREED

    ctypedef struct l45_packet:
        uint8_t *head
        uint8_t *data
        uint8_t *tail
        uint8_t *end
        uint64_t time_ns
        uint32_t wire_bytes
        uint32_t sequence
        uint32_t payload_sum
        uint16_t l4_offset
        uint16_t payload_offset
        uint16_t class_id
        uint16_t flags
        uint8_t ip_version
        uint8_t protocol
        uint8_t direction
        uint8_t origin

    ctypedef struct l45_flow_key:
        uint8_t local[16]
        uint8_t remote[16]
        uint16_t local_port_be
        uint16_t remote_port_be
        uint16_t class_id
        uint8_t protocol
        uint8_t reserved

    ctypedef struct l45_context:
        const l45_host *host
        void *instance
        void *state
        uint64_t *counters
        const l45_flow_key *flow
        uint64_t now_ns
        uint64_t stream
        void *worker
        void *entry
        uint32_t index

    ctypedef struct l45_host:
        uint32_t abi_version
        uint32_t struct_bytes
        l45_packet *(*clone)(l45_context *, const l45_packet *) noexcept nogil
        l45_packet *(*hold)(l45_context *, l45_packet *) noexcept nogil
        void (*resume)(l45_context *, l45_packet *, uint64_t) noexcept nogil
        void (*discard)(l45_context *, l45_packet *) noexcept nogil
        void (*arm)(l45_context *, uint64_t) noexcept nogil
        uint64_t (*random)(l45_context *) noexcept nogil
        l45_packet *(*make)(l45_context *) noexcept nogil
        void *(*take)(l45_context *, size_t) noexcept nogil
        void (*give)(l45_context *, void *) noexcept nogil
        int (*enter)(l45_context *, uint16_t, l45_context *) noexcept nogil
        uint64_t (*clock_ns)(l45_context *) noexcept nogil
        int (*done)(l45_context *) noexcept nogil

    ctypedef struct l45_param:
        const char *name
        const uint8_t *bytes
        size_t byte_count
        int64_t integer
        int64_t last
        double number

    ctypedef struct l45_stream:
        uint32_t struct_bytes
        uint64_t (*inserted)(const void *, uint64_t) noexcept nogil
        void (*fill)(l45_context *, uint64_t, uint32_t, uint8_t *, uint32_t) noexcept nogil
        l45_verdict (*check)(l45_context *, uint64_t, uint32_t, const uint8_t *, uint32_t) noexcept nogil
        void (*change)(l45_context *, uint8_t, uint64_t, uint8_t *, uint32_t) noexcept nogil
        int (*strict)(const void *) noexcept nogil

    ctypedef struct l45_ops:
        uint32_t abi_version
        uint32_t struct_bytes
        uint32_t instance_bytes
        uint32_t flow_state_bytes
        int (*configure)(void *, const l45_param *, size_t, char *, size_t) noexcept nogil
        void (*release)(void *) noexcept nogil
        int (*flow_open)(l45_context *) noexcept nogil
        void (*flow_close)(l45_context *) noexcept nogil
        l45_verdict (*egress)(l45_context *, l45_packet *) noexcept nogil
        l45_verdict (*ingress)(l45_context *, l45_packet *) noexcept nogil
        void (*tick)(l45_context *) noexcept nogil
        uint32_t flow_counters
        const l45_stream *stream
