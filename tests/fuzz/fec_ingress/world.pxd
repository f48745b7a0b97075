"""The two ends of a test of fec, and what lies between them: one world, of which everything here is handed the address.

Memory that the module takes comes from malloc, cell by cell, for the sake of sanitizers.
"""

from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport (
    L45_EGRESS, L45_HOLD, L45_INGRESS, L45_PARTIAL, L45_REWRITTEN, l45_context, l45_verdict,
)
from layer45.fastpath.arena cimport MOST_BYTES
from layer45.fastpath.chain cimport l45_chain
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport COUNT_FLOWS_OPENED
from layer45.fastpath.packet cimport load_be16
from layer45.fastpath.pool cimport ORIGIN_CLONE, l45_carrier
from layer45.fastpath.worker cimport worker_process
from layer45.modules.fec.report cimport report_is
from layer45.modules.fec.state cimport fec_window
from layer45.modules.fec.wire cimport ID_BYTES, SBN_MASK, fec_id, id_read, id_valid, id_write, is_source

from datagrams cimport (
    HEADERS_BYTES, MOST_PAYLOAD_BYTES, REPAIR_PORT, carrier_end, carrier_start, is_sound, udp_sum_holds,
)
from ledger cimport *

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void **memory, size_t alignment, size_t bytes)

cdef enum:
    ENOUGH_BYTES = 1 << 18  # copied in an input: datagrams are short from then on
    UNLIMITED = 255

cdef struct end_pair:       # one configuration's
    l45_worker sender
    l45_worker receiver
    l45_chain *sender_chain
    l45_chain *receiver_chain
    bint apart              # repairs come to a port of their own

cdef struct world:
    const uint8_t *at       # what is left of the input
    const uint8_t *end
    end_pair *ends
    ledger *book
    uint8_t *scratch        # a payload in the making
    uint64_t now_ns
    uint32_t next           # piece to deliver
    uint32_t flow           # to deliver to
    uint32_t start          # where the next life's SBNs are to begin on the wire; NONE: anywhere
    uint32_t life           # of the sender
    uint32_t shift          # of its SBNs on the wire
    uint32_t last_sbn       # that was delivered
    uint32_t takes          # of memory, before it is used up
    size_t live             # cells out
    uint64_t sender_waiting
    text answer             # the last datagram that the receiver made for the sender


cdef inline world *world_of(l45_context *context) noexcept nogil:
    return <world *> (<l45_worker *> context.worker).sink.self


# --- the input --------------------------------------------------------------------------------------------------------

cdef inline uint32_t byte(world *w) noexcept nogil:
    """The next one; 0 behind the last."""
    if w.at == w.end:
        return 0
    w.at += 1
    return w.at[-1]


cdef inline uint32_t length_of(world *w, uint32_t code) noexcept nogil:
    if code < 128 or w.book.bytes > ENOUGH_BYTES:
        return code % 128
    return (code - 128) * 16 if code < 224 else MOST_PAYLOAD_BYTES - (code - 224)


cdef inline uint32_t sbn_near(world *w, uint32_t code) noexcept nogil:
    """Around the last one that was delivered: small steps mostly, some of them large."""
    cdef int8_t step = <int8_t> code
    return (w.last_sbn + (step if -80 <= step < 80 else step * 70000)) & SBN_MASK


# --- the ends' services -----------------------------------------------------------------------------------------------

cdef inline void *take(l45_context *context, size_t bytes) noexcept nogil:
    cdef world *w = world_of(context)
    cdef void *memory = NULL
    if bytes > MOST_BYTES or w.takes == 0 or posix_memalign(&memory, 64, bytes):
        w.book.forgetful |= bytes == sizeof(fec_window)
        return NULL
    w.takes -= w.takes != UNLIMITED
    memset(memory, 0xA5, bytes)
    w.live += 1
    return memory


cdef inline void give(l45_context *context, void *memory) noexcept nogil:
    cdef world *w = world_of(context)
    w.live -= memory != NULL
    free(memory)


cdef inline void sender_finish(void *self, l45_carrier *carrier, l45_verdict verdict) noexcept nogil:
    cdef world *w = <world *> self
    cdef uint32_t bytes = <uint32_t> (carrier.packet.tail - carrier.packet.data)
    cdef const uint8_t *payload = carrier.packet.data + HEADERS_BYTES
    if carrier.packet.origin != ORIGIN_CLONE:
        w.sender_waiting -= 1
        return
    demand(w.book, is_sound(&carrier.packet), b"a made datagram's checksum is wrong")
    put_piece(w, place_for(w), payload, bytes - HEADERS_BYTES, NULL, not report_is(payload, bytes - HEADERS_BYTES),
              load_be16(carrier.packet.data + 22) == REPAIR_PORT)
    memset(carrier.packet.data, 0xEE, bytes)


cdef inline void receiver_finish(void *self, l45_carrier *carrier, l45_verdict verdict) noexcept nogil:
    cdef world *w = <world *> self
    cdef uint32_t bytes = <uint32_t> (carrier.packet.tail - carrier.packet.data)
    if carrier.packet.origin != ORIGIN_CLONE:
        judge(w.book, carrier.queue_id, verdict, &carrier.packet)
    else:
        demand(w.book, carrier.packet.direction == L45_EGRESS, b"a datagram was made for the receiver's own host")
        demand(w.book, is_sound(&carrier.packet), b"an answer's checksum is wrong")
        free(w.answer.bytes)
        w.answer = copy_of(w.book, carrier.packet.data + HEADERS_BYTES, bytes - HEADERS_BYTES)
    memset(carrier.packet.data, 0xEE, bytes)


cdef inline void too_big(void *self, l45_carrier *carrier, uint32_t fitting_bytes) noexcept nogil:
    cdef world *w = <world *> self
    demand(w.book, False, b"a datagram without an MTU is too big")


# --- the sender -------------------------------------------------------------------------------------------------------

cdef inline piece *place_for(world *w) noexcept nogil:
    """The row's next place; NULL: it is full."""
    if w.book.piece_count == MOST_PIECES:
        return NULL
    w.book.piece_count += 1
    memset(&w.book.pieces[w.book.piece_count - 1], 0, sizeof(piece))
    return &w.book.pieces[w.book.piece_count - 1]


cdef inline uint32_t shifted(world *w, uint32_t sbn, uint32_t life) noexcept nogil:
    """An SBN as it stands on the wire; a life's first one says how far all of its are moved."""
    if life != w.life:
        w.life = life
        w.shift = 0 if w.start == NONE else w.start - sbn
    return (sbn + w.shift) & SBN_MASK


cdef inline uint8_t *id_of(const piece *one, uint8_t *payload) noexcept nogil:
    """Where it stands in a copy of the piece."""
    return payload + (0 if one.apart else one.payload.count - ID_BYTES)


cdef inline void put_piece(world *w, piece *one, const uint8_t *payload, uint32_t count, sent_one *sent,
                           bint marked, bint apart) noexcept nogil:
    """Puts what left the sender into a place, its SBN moved. sent: NULL for what the module made."""
    cdef fec_id id
    if one == NULL:
        return
    one.payload = copy_of(w.book, payload, count)
    one.life = <uint32_t> w.ends.sender.counters[COUNT_FLOWS_OPENED]
    one.marked = marked
    one.apart = apart
    if not marked:
        return
    demand(w.book, count >= ID_BYTES, b"a datagram left without an id")
    id = id_read(id_of(one, one.payload.bytes))
    demand(w.book, id_valid(id) and is_source(id) == (sent != NULL), b"a datagram left with a wrong id")
    id.sbn = shifted(w, id.sbn, one.life)
    id_write(id_of(one, one.payload.bytes), id.sbn, id.esi, id.k)
    if sent != NULL:
        sent.sbn = id.sbn


cdef inline void compose(uint8_t *payload, uint32_t count, uint32_t number) noexcept nogil:
    """Told apart by the number where there is room for it; every other one ends in zeros."""
    cdef uint32_t at
    memset(payload, 0, count)
    for at in range(min(count, <uint32_t> 4)):
        payload[at] = <uint8_t> (number >> (8 * at))
    if number & 1:
        for at in range(4, count):
            payload[at] = <uint8_t> (number * 31 + at)


cdef inline void send_one(world *w, uint32_t count) noexcept nogil:
    cdef l45_carrier carrier
    cdef sent_one *one = &w.book.sent[w.book.sent_count]
    cdef piece *place
    cdef uint32_t number = w.book.sent_count, left
    cdef bint marked
    if number == MOST_SENT:
        return
    w.book.sent_count += 1
    compose(w.scratch, count, number)
    memset(one, 0, sizeof(sent_one))
    one.payload = copy_of(w.book, w.scratch, count)
    if not carrier_start(&carrier, w.scratch, count, 0, False, L45_EGRESS):
        return
    place = place_for(w)  # in front of its block's repairs
    marked = worker_process(&w.ends.sender, &carrier) == L45_REWRITTEN
    left = <uint32_t> (carrier.packet.tail - carrier.packet.data) - HEADERS_BYTES
    demand(w.book, left == count + ID_BYTES * marked, b"a datagram left with another length")
    demand(w.book, equal(carrier.packet.data + HEADERS_BYTES, count, &one.payload), b"another content left")
    demand(w.book, is_sound(&carrier.packet), b"a datagram left with a wrong checksum")
    put_piece(w, place, carrier.packet.data + HEADERS_BYTES, left, one, marked, False)
    carrier_end(&carrier)


# --- the receiver -----------------------------------------------------------------------------------------------------

cdef inline void deliver_carrier(world *w, l45_carrier *carrier, const piece *origin) noexcept nogil:
    """Takes the carrier. Its headers, checksum and flags say all that is to be known of it."""
    cdef uint32_t count = <uint32_t> (carrier.packet.tail - carrier.packet.data) - HEADERS_BYTES
    cdef bint sound = udp_sum_holds(carrier.packet.data, count + HEADERS_BYTES) or carrier.packet.flags & L45_PARTIAL
    cdef bint apart = load_be16(carrier.packet.data + 22) == REPAIR_PORT
    cdef l45_verdict verdict
    if w.book.queued_count < MOST_QUEUED:
        carrier.queue_id = queue_one(w.book, carrier.packet.data + HEADERS_BYTES, count, w.flow, apart, origin, sound)
        if w.book.queued[carrier.queue_id].valid:
            w.last_sbn = w.book.queued[carrier.queue_id].id.sbn
        verdict = worker_process(&w.ends.receiver, carrier)
        if verdict != L45_HOLD:
            judge(w.book, carrier.queue_id, verdict, &carrier.packet)
    carrier_end(carrier)


cdef inline void deliver(world *w, const uint8_t *payload, uint32_t count, bint apart,
                         const piece *origin) noexcept nogil:
    cdef l45_carrier carrier
    if carrier_start(&carrier, payload, count, w.flow, apart and w.ends.apart, L45_INGRESS):
        deliver_carrier(w, &carrier, origin)


cdef inline void deliver_pieces(world *w, uint32_t some) noexcept nogil:
    cdef const piece *one
    cdef uint32_t _
    for _ in range(some):
        if w.next < w.book.piece_count:
            one = &w.book.pieces[w.next]
            w.next += 1
            deliver(w, one.payload.bytes, one.payload.count, one.apart, one)
