"""Datagrams that no sender of ours sends, made of what it did send, or of nothing; each takes its operands itself."""

from libc.stdint cimport uint32_t, uint8_t
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport L45_INGRESS, L45_TRUNCATED
from layer45.fastpath.packet cimport store_be16
from layer45.fastpath.pool cimport l45_carrier
from layer45.modules.fec.wire cimport ID_BYTES, SBN_MASK, fec_id, id_read, id_write

from datagrams cimport HEADERS_BYTES, MOST_PAYLOAD_BYTES, SUM_AT, carrier_start, set_udp_sum
from ledger cimport piece
from world cimport byte, deliver, deliver_carrier, id_of, length_of, sbn_near, world


cdef inline piece *next_piece(world *w) noexcept nogil:
    """The next one, copied to w.scratch too, to be altered; NULL: none has an id."""
    cdef piece *one = &w.book.pieces[w.next]
    if w.next >= w.book.piece_count or one.payload.count < ID_BYTES:
        return NULL
    memcpy(w.scratch, one.payload.bytes, one.payload.count)
    return one


cdef inline void alter(world *w) noexcept nogil:
    cdef piece *one = next_piece(w)
    cdef uint32_t which = byte(w)
    cdef fec_id id
    if one == NULL:
        return
    id = id_read(id_of(one, w.scratch))
    id.sbn = sbn_near(w, byte(w)) if which & 1 else id.sbn
    id.esi = byte(w) if which & 2 else id.esi
    id.k = byte(w) | (which & 8) << 8 if which & 4 else id.k
    id_write(id_of(one, w.scratch), id.sbn, id.esi, id.k)
    deliver(w, w.scratch, one.payload.count, one.apart, NULL)


cdef inline void flip(world *w) noexcept nogil:
    """A byte, with the checksum mended or not."""
    cdef piece *one = next_piece(w)
    cdef uint32_t high = byte(w), at = high << 8 | byte(w), mask = byte(w)
    cdef bint mended = byte(w) & 1
    cdef l45_carrier carrier
    if one == NULL or not carrier_start(&carrier, w.scratch, one.payload.count, w.flow, one.apart, L45_INGRESS):
        return
    carrier.packet.data[HEADERS_BYTES + at % one.payload.count] ^= mask
    if mended:
        set_udp_sum(carrier.packet.data, HEADERS_BYTES + one.payload.count)
    deliver_carrier(w, &carrier, NULL if mask else one)


cdef inline void cut(world *w) noexcept nogil:
    """Some bytes less, or more, in front of an id that stands behind, or with it."""
    cdef piece *one = next_piece(w)
    cdef uint32_t some = byte(w), how = byte(w), count
    if one == NULL:
        return
    count = one.payload.count - ID_BYTES
    if how & 1:
        some = min(some + 1, count)
        count = count - some
    else:
        some = min(some + 1, MOST_PAYLOAD_BYTES - ID_BYTES - count)
        memset(w.scratch + count, how & 2, some)
        count = count + some
    if how & 4:
        memcpy(w.scratch + count, one.payload.bytes + one.payload.count - ID_BYTES, ID_BYTES)
        count += ID_BYTES
    deliver(w, w.scratch, count, one.apart, NULL)


cdef inline void raw(world *w) noexcept nogil:
    cdef uint32_t what = byte(w), at
    for at in range(what % 64):
        w.scratch[at] = <uint8_t> byte(w)
    deliver(w, w.scratch, what % 64, what > 191, NULL)


cdef inline void forge_one(world *w, fec_id id, uint32_t count, uint32_t style) noexcept nogil:
    """style: what fills it, behind a length that a symbol could have; whether it comes to the port of repairs."""
    cdef bint apart = style >> 2 & 1
    cdef uint8_t *symbol = w.scratch + (ID_BYTES if apart else 0)
    count = min(count, <uint32_t> MOST_PAYLOAD_BYTES - ID_BYTES)
    memset(symbol, style >> 3, count)
    if style & 1 and count >= 3:
        symbol[0] = 0
        store_be16(symbol + 1, (count - 3) // (1 + (style >> 1 & 1)))
    id_write(w.scratch if apart else symbol + count, id.sbn, id.esi, id.k)
    deliver(w, w.scratch, count + ID_BYTES, apart, NULL)


cdef inline fec_id some_id(world *w) noexcept nogil:
    cdef fec_id id
    id.sbn = sbn_near(w, byte(w))
    id.esi = byte(w)
    id.k = byte(w)
    return id


cdef inline void forge(world *w) noexcept nogil:
    cdef fec_id id = some_id(w)
    cdef uint32_t count = length_of(w, byte(w))
    forge_one(w, id, count, byte(w))


cdef inline void flood(world *w) noexcept nogil:
    """Many, each with an SBN, ESI or both by some higher."""
    cdef fec_id id = some_id(w)
    cdef uint32_t count = length_of(w, byte(w)), style = byte(w), steps = byte(w), some = byte(w), _
    for _ in range(some % 128):
        forge_one(w, id, count, style)
        id.sbn = (id.sbn + (steps & 7)) & SBN_MASK
        id.esi = (id.esi + (steps >> 3 & 3)) & 0xFF


cdef inline void odd(world *w) noexcept nogil:
    """As it is, but for what the headers or the kernel say of it."""
    cdef piece *one = next_piece(w)
    cdef uint32_t how = byte(w)
    cdef l45_carrier carrier
    if one == NULL or not carrier_start(&carrier, w.scratch, one.payload.count, w.flow, one.apart, L45_INGRESS):
        return
    if how % 4 == 0:
        memset(carrier.packet.data + SUM_AT, 0, 2)
        deliver_carrier(w, &carrier, one)
        return
    if how % 4 == 1:
        carrier.packet.flags = L45_TRUNCATED
        carrier.packet.tail -= min(1 + how // 4, one.payload.count)
    elif how % 4 == 2:
        carrier.packet.data[6] = 0x20
    else:
        store_be16(carrier.packet.data + (24 if how & 4 else 2), how * 256)
    deliver_carrier(w, &carrier, NULL)
