/* The contract between the engine and a module's hot code. abi.pxd mirrors it.
 *
 * Ownership: the engine owns every buffer. A module borrows a packet for the length of one call, unless it took the
 * packet with host->clone or host->hold; then it owns it until host->resume or host->discard.
 * Threads: one worker thread runs all calls of a flow. Instance memory is shared by all workers: after configure it is
 * read-only, or touched with atomics. Flow state belongs to the flow's worker alone.
 */
#ifndef LAYER45_ABI_H
#define LAYER45_ABI_H

#include <stddef.h>
#include <stdint.h>

#define L45_ABI_VERSION 1
#define L45_OPS_CAPSULE "layer45.ops"
#define L45_NEVER UINT64_MAX

/* What a module says of a packet. 0 is never a valid answer: a swallowed exception returns it. */
typedef enum {
    L45_UNSET = 0,
    L45_PASS,      /* untouched by this module */
    L45_REWRITTEN, /* changed in place, through the edits of packet.pxd */
    L45_DROP,
    L45_HOLD,      /* kept by the module, which called host->hold first */
    L45_ERROR      /* could not do its work: the policy's on_failure decides. Never for what a peer sent: that is a DROP
                    * or a PASS. A chain that fails for most of what it sends is disabled. */
} l45_verdict;

enum { L45_EGRESS = 0, L45_INGRESS = 1 };

enum {
    L45_EDITED = 1,    /* some byte differs from what the kernel gave */
    L45_SUMMED = 2,    /* payload_sum holds what the L4 checksum claims of the payload */
    L45_NO_SUM = 4,    /* the L4 checksum field carries no claim (UDP over IPv4, 0) */
    L45_PARTIAL = 8,   /* the field holds the pseudo-header sum only: compute it whole on the way out; with L45_SUMMED,
                        * payload_sum is what the payload really sums to */
    L45_GSO = 16,      /* a super-packet: the kernel cuts it into segments later */
    L45_TRUNCATED = 32, /* data..tail is shorter than the packet: look, never edit */
    L45_AGREED = 64     /* TCP: the peer runs the mirror of this chain, so the connection is customized */
};

/* An IP packet in a buffer with room around it:  head <= data < tail <= end.  [data, tail) is the packet. */
typedef struct l45_packet {
    uint8_t *head;
    uint8_t *data;
    uint8_t *tail;
    uint8_t *end;
    uint64_t time_ns;        /* arrival; the worker's clock (CLOCK_MONOTONIC live, capture time in replay) */
    uint32_t wire_bytes;     /* length of the IP packet, also where it is truncated here */
    uint32_t sequence;       /* number of this packet in its flow and direction; see README "sequence" */
    uint32_t payload_sum;    /* one's complement sum the checksum claims of the payload (L45_SUMMED) */
    uint16_t l4_offset;      /* from data */
    uint16_t payload_offset; /* from data */
    uint16_t class_id;
    uint16_t flags;
    uint8_t ip_version;      /* 4 or 6 */
    uint8_t protocol;        /* IPPROTO_UDP or IPPROTO_TCP */
    uint8_t direction;       /* L45_EGRESS or L45_INGRESS */
    uint8_t origin;          /* engine's own: where the verdict goes */
} l45_packet;

/* A flow as both of its directions see it. Addresses are network order, IPv4 as ::ffff:a.b.c.d. */
typedef struct l45_flow_key {
    uint8_t local[16];
    uint8_t remote[16];
    uint16_t local_port_be;
    uint16_t remote_port_be;
    uint16_t class_id;
    uint8_t protocol;
    uint8_t reserved;
} l45_flow_key;

struct l45_host;

/* What a module gets with each call. */
typedef struct l45_context {
    const struct l45_host *host;
    void *instance;          /* ops->instance_bytes, filled by configure */
    void *state;             /* ops->flow_state_bytes, zero when the flow opened */
    uint64_t *counters;      /* of this instance on this worker, in the manifest's order */
    const l45_flow_key *flow;
    uint64_t now_ns;
    uint64_t stream;         /* in the functions of l45_stream: the stream's number, the same at both ends (its sender's
                              * initial sequence number above its receiver's), so that no two streams need be alike */
    void *worker;            /* engine's own */
    void *entry;             /* engine's own: the flow table's entry */
    uint32_t index;          /* engine's own: place in the chain */
} l45_context;

/* What the engine does for a module, inside egress, ingress, tick and flow_close; random, take and give in flow_open too. */
typedef struct l45_host {
    uint32_t abi_version;
    uint32_t struct_bytes;
    /* A copy of a packet, owned by the caller; NULL when the worker's pool is empty (counted). */
    l45_packet *(*clone)(l45_context *, const l45_packet *);
    /* Takes the packet out of the queue, un-verdicted; the caller owns the returned one and must answer L45_HOLD.
     * NULL when no more may be held, or when it is held already (counted): answer something else. */
    l45_packet *(*hold)(l45_context *, l45_packet *);
    /* Sends an owned packet on through the rest of the chain at when_ns (0: now). Ownership ends. */
    void (*resume)(l45_context *, l45_packet *, uint64_t when_ns);
    /* Ends an owned packet: a clone vanishes, a held one is dropped. */
    void (*discard)(l45_context *, l45_packet *);
    /* Sets this instance's one timer for this flow: tick is called at when_ns or soon after, and not within 131 us, so
     * that no module can keep its worker from its packets. L45_NEVER disarms. */
    void (*arm)(l45_context *, uint64_t when_ns);
    /* 64 random bits; the same in every replay with the same seed. Not for secrets. */
    uint64_t (*random)(l45_context *);
    /* An empty egress datagram of a UDP flow, owned by the caller, with the headers of the flow's last egress packet,
     * or, before there was one, headers made from its key. Only in chains with a module that declares emits = ["egress"].
     * NULL as for clone. */
    l45_packet *(*make)(l45_context *);
    /* Memory of the worker's, at least so many bytes, 64-aligned, not zeroed; NULL when module_memory_mb is used up
     * (counted). Whoever takes some gives it back, in flow_close at the latest. */
    void *(*take)(l45_context *, size_t bytes);
    void (*give)(l45_context *, void *memory); /* NULL is none */
    /* Makes `other` the context of this instance in the flow that differs from this one in its local port only, for the
     * length of the call. 0: this worker has none, or it has another chain. What is held by it is that flow's. */
    int (*enter)(l45_context *, uint16_t local_port_be, l45_context *other);
    /* A clock to measure with, in ns; in a replay it stands still within a call. */
    uint64_t (*clock_ns)(l45_context *);
    /* This instance wants no more packets of the flow, in either direction: it is not called for them any more. When all
     * instances of the chain have said so, the rest of the flow stays in the kernel, and never comes to the engine. 0: the
     * chain does not let go of flows, as a module in it does not declare lets_go, and all is as before. */
    int (*done)(l45_context *);
} l45_host;

/* A validated parameter, always present (the default stands in): numbers in the manifest's unit. */
typedef struct l45_param {
    const char *name;
    const uint8_t *bytes; /* text, bytes, choice (its name); else NULL */
    size_t byte_count;
    int64_t integer;      /* integer, boolean, choice (its position), range (its first) */
    int64_t last;         /* range: its last */
    double number;        /* number and integer */
} l45_param;

/* What a module of kind stream does to a TCP connection's byte stream: pure functions of the instance and of a byte's
 * offset in the stream (0 is the first byte behind the SYN; 64 bits, so that it never wraps). `direction` is the packet's:
 * on ingress the functions see what the peer's egress made. The engine does the rest: sequence numbers, acknowledgements,
 * windows, retransmissions cut elsewhere. Any function may be NULL. */
typedef struct l45_stream {
    uint32_t struct_bytes;
    /* How many bytes are inserted in front of stream bytes [0, offset), and so before the run in front of byte `offset`.
     * 0 at 0; never falls as offset grows. NULL: none are. The manifest's stream_growth bounds it. */
    uint64_t (*inserted)(const void *instance, uint64_t offset);
    /* Writes bytes [skip, skip + count) of the run in front of stream byte `offset`. Needed where `inserted` is there. */
    void (*fill)(l45_context *, uint64_t offset, uint32_t skip, uint8_t *bytes, uint32_t count);
    /* Looks at such bytes of the peer's before they are taken out: PASS, or DROP for the whole segment. */
    l45_verdict (*check)(l45_context *, uint64_t offset, uint32_t skip, const uint8_t *bytes, uint32_t count);
    /* Changes stream bytes [offset, offset + count) in place; on ingress it undoes that. */
    void (*change)(l45_context *, uint8_t direction, uint64_t offset, uint8_t *bytes, uint32_t count);
    /* 1: a connection whose peer does not run this chain is refused; 0: it goes on as it is. */
    int (*strict)(const void *instance);
} l45_stream;

/* A module: what its PyCapsule named L45_OPS_CAPSULE points to. Lives as long as the process. */
typedef struct l45_ops {
    uint32_t abi_version;      /* L45_ABI_VERSION */
    uint32_t struct_bytes;     /* sizeof(l45_ops) */
    uint32_t instance_bytes;
    uint32_t flow_state_bytes;
    /* Cold. 0, or -1 with one line in error. instance comes zeroed. Without the interpreter lock; may take its time. */
    int (*configure)(void *instance, const l45_param *params, size_t count, char *error, size_t error_bytes);
    void (*release)(void *instance);     /* may be NULL; undoes configure */
    int (*flow_open)(l45_context *);     /* may be NULL; 0, or -1: the packet is an ERROR */
    /* May be NULL; owned packets must be resumed or discarded here. The flow's instances close first to last. One that
     * has this function is not called any more when it has run: for a packet that a later one then lets go towards
     * it (ingress), the policy's on_failure decides. */
    void (*flow_close)(l45_context *);
    /* Hot: no allocation, no lock, no interpreter. NULL: the module does nothing in this direction. */
    l45_verdict (*egress)(l45_context *, l45_packet *);
    l45_verdict (*ingress)(l45_context *, l45_packet *);
    void (*tick)(l45_context *);         /* may be NULL */
    /* How many of the instance's counters, the first in the manifest, are kept for each flow too: as uint64_t at the
     * start of the flow's state, where the module itself counts them besides. Others read them while it runs. */
    uint32_t flow_counters;
    const l45_stream *stream;            /* NULL: TCP segments go through egress and ingress, as datagrams do */
} l45_ops;

#endif
