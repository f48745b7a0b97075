"""See agree.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy

from layer45.fastpath.abi cimport L45_AGREED, L45_DROP, L45_EGRESS, L45_INGRESS, L45_PASS, l45_packet, l45_verdict
from layer45.fastpath.chain cimport chain_segment_bytes, l45_chain
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport (
    COUNT_CONNECTIONS_ALONE, COUNT_CONNECTIONS_CUSTOMIZED, COUNT_CONNECTIONS_REFUSED, COUNT_CONNECTIONS_UNFIT,
)
from layer45.fastpath.flow cimport (
    PHASE_ALONE, PHASE_CUSTOMIZED, PHASE_OPENING, connection_of, l45_entry, stages_of,
)
from layer45.fastpath.known cimport known_customize, known_remove
from layer45.fastpath.packet cimport LARGEST_PACKET_BYTES, begin_edit, load_be16, payload_bytes, remove_back, store_be16
from layer45.fastpath.pool cimport l45_carrier
from layer45.fastpath.stream cimport NO_FIN, l45_connection, l45_stage_way
from layer45.fastpath.tcp cimport (
    NO_SCALE, OFFER_BYTES, OFFER_EXID, OPTION_AO, OPTION_EXPERIMENT, OPTION_MD5, OPTION_MPTCP, OPTION_MSS, OPTION_SCALE,
    SCALE_LIMIT, TCP_ACK, TCP_FLAGS, TCP_RST, TCP_SYN, l45_option, option_experiment, option_find, option_insert,
    option_remove, option_room, options_sound, tcp_acknowledgement, tcp_flags, tcp_header, tcp_sequence,
)

cdef enum:
    OFFERED_SYNS = 3        # then we ask no more: a box on the way may drop SYNs with options that it does not know
    LARGEST_PATH = 0xFFFF   # of an MTU that matters
    DIGESTS = 4             # where in the option
    LARGEST_SEGMENT_BYTES = (LARGEST_PACKET_BYTES - 192) // 2  # less the headers


cdef l45_verdict agree(l45_worker *worker, l45_entry *entry, l45_carrier *carrier) noexcept nogil:
    cdef l45_packet *packet = &carrier.packet
    cdef l45_connection *connection = connection_of(entry)
    cdef uint8_t flags = tcp_flags(packet)
    cdef uint8_t before = entry.phase
    cdef l45_verdict verdict = L45_PASS
    if flags & TCP_SYN:
        if packet.direction == L45_EGRESS:
            _our_syn(worker, entry, connection, carrier)
        else:
            verdict = _peers_syn(worker, entry, connection, packet)
    elif flags & TCP_RST:
        connection.reset |= _resets(entry, connection, packet)
    elif packet.direction == L45_EGRESS or tcp_acknowledgement(packet) == connection.first[L45_EGRESS]:
        connection.confirmed = True
    if entry.phase == PHASE_CUSTOMIZED:
        packet.flags |= L45_AGREED
        if before != PHASE_CUSTOMIZED and worker.sink.path_mtu != NULL:
            connection.path_mtu = <uint16_t> min(
                worker.sink.path_mtu(worker.sink.self, carrier), <uint32_t> LARGEST_PATH)
    return verdict


# --- SYNs of our kernel -----------------------------------------------------------------------------------------------

cdef bint agree_begins_anew(const l45_entry *entry, const l45_carrier *carrier) noexcept nogil:
    cdef const l45_connection *connection = connection_of(entry)
    if carrier.packet.direction != L45_EGRESS or not tcp_flags(&carrier.packet) & TCP_SYN:
        return False
    if not connection.started:
        return entry.phase != PHASE_OPENING
    return tcp_sequence(&carrier.packet) != connection.isn


cdef void _our_syn(l45_worker *worker, l45_entry *entry, l45_connection *connection,
                   l45_carrier *carrier) noexcept nogil:
    cdef l45_packet *packet = &carrier.packet
    cdef bint again = connection.started and entry.phase != PHASE_OPENING
    if not again:
        connection.started = True
        connection.isn = tcp_sequence(packet)
        connection.first[L45_EGRESS] = connection.isn + 1
        connection.syn_bytes = max(connection.syn_bytes, payload_bytes(packet))
        connection.scale[L45_EGRESS] = _scale(packet)
    if tcp_flags(packet) & TCP_ACK:
        if not again:
            _answer_peer(worker, entry, connection, packet)
        if entry.phase != PHASE_CUSTOMIZED:
            return
    elif not _offers(worker, entry, connection, packet):
        return
    option_insert(packet, entry.chain.offer, OFFER_BYTES)
    _lower_mss(entry.chain, packet)
    _make_fit(connection, carrier)


cdef bint _offers(l45_worker *worker, l45_entry *entry, l45_connection *connection,
                  l45_packet *packet) noexcept nogil:
    if entry.phase != PHASE_OPENING:
        return False
    if not _fits(packet):
        worker.counters[COUNT_CONNECTIONS_UNFIT] += connection.syns == 0
        connection.syns = 1
        return False
    connection.syns += connection.syns < 255
    if connection.syns > OFFERED_SYNS and not entry.chain.strict:
        return False
    connection.offered = True
    return True


cdef inline bint _fits(const l45_packet *packet) noexcept nogil:
    """Room for the option, and none that signs the segment or counts the stream's bytes itself."""
    return (option_room(packet) >= OFFER_BYTES and options_sound(packet)
            and option_find(packet, OPTION_MD5).at == 0 and option_find(packet, OPTION_AO).at == 0
            and option_find(packet, OPTION_MPTCP).at == 0)


cdef void _answer_peer(l45_worker *worker, l45_entry *entry, l45_connection *connection,
                       l45_packet *packet) noexcept nogil:
    """Our kernel takes the peer's SYN, or we know nothing of the one that it takes."""
    cdef uint32_t acknowledged = tcp_acknowledgement(packet)
    cdef bint known = connection.peer.seen and acknowledged - connection.peer.first <= connection.peer.data_bytes
    cdef bint mirrors = _mirrors(entry.chain, connection.peer.digests, connection.peer.offered)
    connection.first[L45_INGRESS] = acknowledged
    connection.scale[L45_INGRESS] = connection.peer.scale
    _decide(worker, entry, connection, known and mirrors and not _crosses(entry, connection) and _fits(packet))


cdef void _lower_mss(const l45_chain *chain, l45_packet *packet) noexcept nogil:
    """So that the peer's segments, grown by the chain, fit where its segments would have fitted.

    And two of them into a super-packet that a queue can hand us: Linux puts at least so many into one, even where the
    MTU is that of loopback.
    """
    cdef l45_option mss = option_find(packet, OPTION_MSS)
    cdef uint32_t given
    if mss.bytes != 4:
        return
    given = min(load_be16(packet.data + mss.at + 2), <uint32_t> LARGEST_SEGMENT_BYTES)
    begin_edit(packet)
    store_be16(packet.data + mss.at + 2, chain_segment_bytes(chain, given))


cdef void _make_fit(l45_connection *connection, l45_carrier *carrier) noexcept nogil:
    """A SYN with data may have filled the MTU: the data's end goes later, as what the peer did not take."""
    cdef l45_packet *packet = &carrier.packet
    cdef uint32_t count = <uint32_t> (packet.tail - packet.data)
    if carrier.mtu and count > carrier.mtu:
        remove_back(packet, min(count - carrier.mtu, payload_bytes(packet)))
        connection.syn_bytes = max(connection.syn_bytes, payload_bytes(packet))


# --- SYNs of the peer -------------------------------------------------------------------------------------------------

cdef l45_verdict _peers_syn(l45_worker *worker, l45_entry *entry, l45_connection *connection,
                            l45_packet *packet) noexcept nogil:
    cdef l45_option offer = option_experiment(packet, OPTION_EXPERIMENT, OFFER_EXID)
    cdef uint8_t digests[4]
    cdef l45_option mss = option_find(packet, OPTION_MSS)
    cdef bint offered = offer.bytes == OFFER_BYTES
    if entry.phase == PHASE_OPENING:
        connection.mss = load_be16(packet.data + mss.at + 2) if mss.bytes == 4 else 0
    if offered:
        memcpy(digests, packet.data + offer.at + DIGESTS, sizeof(digests))
    if tcp_flags(packet) & TCP_ACK:
        if offered and entry.phase == PHASE_OPENING and not connection.started:
            return L45_DROP  # to an offer of an engine that is gone: our kernel will send its SYN again, to this one
        if not _takes_answer(worker, entry, connection, packet, _mirrors(entry.chain, digests, offered)):
            _refuse(connection, packet)
            return L45_PASS
    else:
        _remember(connection, packet, digests, offered)
        if entry.chain.strict and (_crosses(entry, connection) or not _mirrors(entry.chain, digests, offered)):
            worker.counters[COUNT_CONNECTIONS_REFUSED] += 1
            return L45_DROP
    if offered:
        option_remove(packet, offer)
    return L45_PASS


cdef inline bint _crosses(const l45_entry *entry, const l45_connection *connection) noexcept nogil:
    return entry.phase == PHASE_OPENING and connection.syns > 0


cdef void _remember(l45_connection *connection, const l45_packet *packet, const uint8_t *digests,
                    bint offered) noexcept nogil:
    connection.peer.first = tcp_sequence(packet) + 1
    connection.peer.data_bytes = payload_bytes(packet)
    connection.peer.scale = _scale(packet)
    connection.peer.seen = True
    connection.peer.offered = offered
    if offered:
        memcpy(connection.peer.digests, digests, sizeof(connection.peer.digests))


cdef bint _takes_answer(l45_worker *worker, l45_entry *entry, l45_connection *connection, l45_packet *packet,
                        bint mirrors) noexcept nogil:
    """A SYN/ACK. False: the connection is refused. One that does not acknowledge our SYN says nothing to us."""
    cdef uint32_t acknowledged = tcp_acknowledgement(packet)
    if entry.phase != PHASE_OPENING or not connection.started \
            or acknowledged - connection.first[L45_EGRESS] > connection.syn_bytes:
        return True
    if entry.chain.strict and not (mirrors and connection.offered):
        worker.counters[COUNT_CONNECTIONS_REFUSED] += 1
        return False
    connection.first[L45_EGRESS] = acknowledged
    connection.first[L45_INGRESS] = tcp_sequence(packet) + 1
    connection.scale[L45_INGRESS] = _scale(packet)
    _decide(worker, entry, connection, mirrors and connection.offered)
    if entry.phase != PHASE_CUSTOMIZED and mirrors and connection.offered:  # as the peer thinks it is
        worker.counters[COUNT_CONNECTIONS_REFUSED] += 1
        return False
    return True


cdef void _refuse(l45_connection *connection, l45_packet *packet) noexcept nogil:
    """Makes the SYN/ACK the peer's RST: the program hears at once that the connection is refused."""
    begin_edit(packet)
    tcp_header(packet)[TCP_FLAGS] = TCP_RST | TCP_ACK
    connection.reset = True


# --- both -------------------------------------------------------------------------------------------------------------

cdef inline bint _mirrors(const l45_chain *chain, const uint8_t *digests, bint offered) noexcept nogil:
    """Whether what leaves there is what we expect to come, and the other way round."""
    return offered and memcmp(digests, chain.offer + DIGESTS + 2, 2) == 0 \
        and memcmp(digests + 2, chain.offer + DIGESTS, 2) == 0


cdef void _decide(l45_worker *worker, l45_entry *entry, l45_connection *connection, bint customized) noexcept nogil:
    if customized and entry.chain.stages and known_customize(&worker.known, &entry.key) != 0:
        customized = False
    if not customized and entry.chain.stages == entry.chain.count:
        known_remove(&worker.known, &entry.key)
    entry.phase = PHASE_CUSTOMIZED if customized else PHASE_ALONE
    worker.counters[COUNT_CONNECTIONS_CUSTOMIZED if customized else COUNT_CONNECTIONS_ALONE] += 1
    if connection.scale[0] == NO_SCALE or connection.scale[1] == NO_SCALE:
        connection.scale[0] = 0
        connection.scale[1] = 0


cdef inline uint8_t _scale(const l45_packet *packet) noexcept nogil:
    cdef l45_option scale = option_find(packet, OPTION_SCALE)
    return min(packet.data[scale.at + 2], <uint8_t> SCALE_LIMIT) if scale.bytes == 3 else <uint8_t> NO_SCALE


cdef bint _resets(l45_entry *entry, l45_connection *connection, const l45_packet *packet) noexcept nogil:
    """A kernel takes a RST at the very byte that it waits for (RFC 5961 section 3)."""
    if packet.direction == L45_EGRESS or entry.chain.stages == 0:
        return True
    return tcp_sequence(packet) == connection.first[L45_INGRESS] \
        + <uint32_t> stages_of(entry)[entry.chain.stages - 1].ways[L45_INGRESS].near_wire


cdef bint agree_is_brief(const l45_entry *entry) noexcept nogil:
    cdef const l45_connection *connection = connection_of(entry)
    cdef const l45_stage_way *came
    if entry.phase != PHASE_CUSTOMIZED or connection.reset or not connection.confirmed:
        return True
    if entry.chain.stages == 0:
        return False
    came = &stages_of(entry).ways[L45_INGRESS]
    return stages_of(entry).ways[L45_EGRESS].fin != NO_FIN and came.fin != NO_FIN \
        and came.near_stream == came.fin + 1
