"""What was sent, what is on its way, and what may therefore come out of the receiver.

A block is mixed once a flow has met a forged or altered datagram of it whose checksum holds, or datagrams of it from
two lives of the sender: what is recovered of it may be anything. Of others only what was sent may be delivered, once.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from layer45.fastpath.abi cimport L45_DROP, L45_PASS, L45_REWRITTEN, l45_packet, l45_verdict
from layer45.modules.fec.wire cimport ID_BYTES, fec_id, id_read, id_valid, is_source, sbn_ahead
from datagrams cimport HEADERS_BYTES, is_sound, lengths_hold

cdef enum:
    FLOWS = 3
    MOST_SENT = 1024
    MOST_PIECES = 2048
    MOST_QUEUED = 4096
    BLOCKS = 1024           # notes of blocks, by SBN
    NONE = 0x7FFFFFFF
    NEWS = 4                # kinds of them
    NEAR = 32               # blocks that a window is sure to hold

cdef struct text:
    uint8_t *bytes
    uint32_t count

cdef struct sent_one:       # what a program sent, and its block
    text payload
    uint32_t sbn
    uint16_t arrived[FLOWS]  # how often; those of a block with the same content count as the first of them

cdef struct piece:          # what left the sender
    text payload
    uint32_t life           # which flow of the sender's
    bint marked             # with an id
    bint apart              # a repair to a port of its own, with the id in front

cdef struct queued_one:     # what the receiver was given
    text payload
    uint32_t flow
    fec_id id
    bint valid              # the id
    bint genuine            # as it left the sender, with an id
    bint sound
    bint ended

cdef struct block_note:
    uint32_t number         # SBN + 1; 0: no note
    uint32_t life
    bint mixed

cdef struct ledger:
    const char *broken      # the first thing that was not as it should be
    uint64_t bytes          # of all copies
    uint32_t sent_count
    uint32_t piece_count
    uint32_t queued_count
    uint32_t waiting        # of the queued ones
    uint64_t kept_ids       # genuine datagrams that went on as they came
    const uint64_t *news[NEWS]  # counters of flows that ended and numberings that began anew: see is_loose
    bint forgetful          # there was no memory to remember what arrived
    uint32_t last_sbn[FLOWS]  # that was met
    bint met[FLOWS]
    bint far[FLOWS]         # they lay so far apart that a flow can't remember them all
    bint blurred            # there were more blocks than notes: contents are not judged
    sent_one sent[MOST_SENT]
    piece pieces[MOST_PIECES]
    queued_one queued[MOST_QUEUED]
    block_note blocks[FLOWS][BLOCKS]


cdef inline void demand(ledger *book, bint holds, const char *otherwise) noexcept nogil:
    if not holds and book.broken == NULL:
        book.broken = otherwise


cdef inline text copy_of(ledger *book, const uint8_t *bytes, uint32_t count) noexcept nogil:
    cdef text copy
    copy.bytes = <uint8_t *> malloc(count + 1)
    copy.count = count
    memcpy(copy.bytes, bytes, count)
    book.bytes += count
    return copy


cdef inline void ledger_end(ledger *book) noexcept nogil:
    """Frees all copies and forgets all."""
    cdef uint32_t at
    for at in range(book.sent_count):
        free(book.sent[at].payload.bytes)
    for at in range(book.piece_count):
        free(book.pieces[at].payload.bytes)
    for at in range(book.queued_count):
        free(book.queued[at].payload.bytes)
    memset(book.blocks, 0, sizeof(book.blocks))
    memset(book.far, 0, sizeof(book.far))
    memset(book.met, 0, sizeof(book.met))
    book.bytes = book.kept_ids = 0
    book.sent_count = book.piece_count = book.queued_count = book.waiting = 0
    book.forgetful = book.blurred = False


# --- what comes in ----------------------------------------------------------------------------------------------------

cdef inline void note_block(ledger *book, const queued_one *one, uint32_t life) noexcept nogil:
    cdef block_note *note = &book.blocks[one.flow][one.id.sbn % BLOCKS]
    book.far[one.flow] |= book.met[one.flow] and not -NEAR <= sbn_ahead(one.id.sbn, book.last_sbn[one.flow]) <= NEAR
    book.last_sbn[one.flow] = one.id.sbn
    book.met[one.flow] = True
    if note.number == 0:
        note.number = one.id.sbn + 1
        note.life = life
    book.blurred |= note.number != one.id.sbn + 1
    note.mixed |= not one.genuine or note.life != life


cdef inline bint is_mixed(const ledger *book, const queued_one *one) noexcept nogil:
    cdef const block_note *note = &book.blocks[one.flow][one.id.sbn % BLOCKS]
    return book.blurred or (note.number == one.id.sbn + 1 and note.mixed)


cdef inline uint32_t queue_one(ledger *book, const uint8_t *payload, uint32_t count, uint32_t flow, bint apart,
                               const piece *origin, bint sound) noexcept nogil:
    """Its number. origin: the piece that it is, unaltered; NULL: none."""
    cdef queued_one *one = &book.queued[book.queued_count]
    memset(one, 0, sizeof(queued_one))
    one.payload = copy_of(book, payload, count)
    one.flow = flow
    one.sound = sound
    one.genuine = origin != NULL and origin.marked
    if count >= ID_BYTES:
        one.id = id_read(payload + (0 if apart else count - ID_BYTES))
        one.valid = id_valid(one.id)
    if one.valid and sound:
        note_block(book, one, origin.life if origin != NULL else 0)
    book.queued_count += 1
    book.waiting += 1
    return book.queued_count - 1


# --- what comes out ---------------------------------------------------------------------------------------------------

cdef inline bint equal(const uint8_t *bytes, uint32_t count, const text *to) noexcept nogil:
    return count == to.count and memcmp(bytes, to.bytes, count) == 0


cdef inline uint32_t sent_like(const ledger *book, const queued_one *one, const uint8_t *bytes, uint32_t count,
                               uint32_t *alike) noexcept nogil:
    """The first datagram of one's block with this content, and how many there are; NONE: there is none."""
    cdef uint32_t at, found = NONE
    alike[0] = 0
    for at in range(book.sent_count):
        if book.sent[at].sbn == one.id.sbn and equal(bytes, count, &book.sent[at].payload):
            found = min(found, at)
            alike[0] += 1
    return found


cdef inline bint is_loose(const ledger *book, uint32_t flow) noexcept nogil:
    """Whether a datagram may arrive twice."""
    cdef uint32_t at
    for at in range(<uint32_t> NEWS):
        if book.news[at][0]:
            return True
    return book.forgetful or book.far[flow]


cdef inline void judge_content(ledger *book, const queued_one *one, const uint8_t *bytes,
                               uint32_t count) noexcept nogil:
    """Of a datagram whose checksum holds."""
    cdef uint32_t alike, sent = sent_like(book, one, bytes, count, &alike)
    demand(book, sent != NONE or is_mixed(book, one), b"something was delivered that nobody sent")
    if sent == NONE:
        return
    book.sent[sent].arrived[one.flow] += 1
    demand(book, book.sent[sent].arrived[one.flow] <= alike or is_loose(book, one.flow) or is_mixed(book, one),
           b"a datagram was delivered twice")


cdef inline void judge_rewritten(ledger *book, const queued_one *one, const l45_packet *packet) noexcept nogil:
    cdef const uint8_t *bytes = packet.data + HEADERS_BYTES
    cdef uint32_t count = <uint32_t> (packet.tail - packet.data) - HEADERS_BYTES
    demand(book, lengths_hold(packet), b"a length or the IP checksum is wrong")
    demand(book, is_sound(packet) == one.sound, b"a wrong checksum became right, or a right one wrong")
    demand(book, one.valid, b"a datagram without an id was changed")
    demand(book, is_source(one.id) or one.sound, b"a corrupt repair datagram was delivered")
    if is_source(one.id):
        demand(book, count + ID_BYTES == one.payload.count and memcmp(bytes, one.payload.bytes, count) == 0,
               b"a source datagram is not what it was without its id")
    if one.sound:
        judge_content(book, one, bytes, count)


cdef inline void judge(ledger *book, uint32_t number, l45_verdict verdict, const l45_packet *packet) noexcept nogil:
    """A queued datagram's verdict."""
    cdef queued_one *one = &book.queued[number]
    demand(book, number < book.queued_count and not one.ended, b"a second verdict")
    if book.broken != NULL:
        return
    one.ended = True
    book.waiting -= 1
    demand(book, verdict in (L45_PASS, L45_REWRITTEN, L45_DROP), b"not a verdict")
    if verdict == L45_REWRITTEN:
        judge_rewritten(book, one, packet)
    elif verdict == L45_PASS:
        book.kept_ids += one.genuine
