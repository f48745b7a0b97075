"""See stream.pxd. A segment's way: numbers -> bytes changed -> runs put in or taken out -> header."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from layer45.fastpath.abi cimport (
    L45_DROP, L45_EGRESS, L45_INGRESS, L45_PASS, L45_REWRITTEN, l45_context, l45_packet, l45_verdict,
)
from layer45.fastpath.chain cimport l45_instance
from layer45.fastpath.layout cimport l45_layout, layout_back, layout_wire
from layer45.fastpath.packet cimport (
    begin_edit, change_in_pieces, load_be16, load_be32, payload_bytes, store_be16, store_be32,
)
from layer45.fastpath.runs cimport runs_insert, runs_remove
from layer45.fastpath.tcp cimport (
    OPTION_SACK, TCP_ACK, TCP_ACKNOWLEDGEMENT, TCP_FIN, TCP_RST, TCP_SEQUENCE, TCP_SYN, TCP_URG, TCP_URGENT, TCP_WINDOW,
    l45_option, option_find, stream_offset, tcp_acknowledgement, tcp_flags, tcp_header, tcp_sequence, tcp_window,
)

cdef enum:
    LARGEST_FIELD = 0xFFFF


cdef inline l45_layout _layout(const l45_instance *instance, const l45_stage *stage, int way) noexcept nogil:
    cdef l45_layout layout
    layout.inserted = instance.stream.inserted if instance.runs[way] else NULL
    layout.instance = instance.memory
    layout.near_stream = stage.ways[way].near_stream
    layout.near_wire = stage.ways[way].near_wire
    return layout


# --- numbers: positions in a stream that may have ended ---------------------------------------------------------------

cdef inline int64_t _out(const l45_layout *layout, const l45_stage_way *way, int64_t offset) noexcept nogil:
    """The wire offset of a number of the stream side; behind a FIN numbers go on one by one."""
    if way.fin != NO_FIN and offset == way.fin + 1:
        return layout_wire(layout, way.fin) + 1
    return layout_wire(layout, offset)


cdef inline int64_t _back(const l45_layout *layout, const l45_stage_way *way, int64_t wire) noexcept nogil:
    if way.fin != NO_FIN and wire == layout_wire(layout, way.fin) + 1:
        return way.fin + 1
    return layout_back(layout, wire)


cdef inline int64_t _trusted(const l45_layout *layout, l45_stage_way *way, uint32_t number,
                             uint32_t first) noexcept nogil:
    """The wire offset of a number of our own kernel's, which becomes the one that others are near to."""
    way.near_stream = stream_offset(number, first, way.near_stream)
    way.near_wire = _out(layout, way, way.near_stream)
    return way.near_wire


cdef uint32_t stage_back(const l45_instance *instance, const l45_connection *connection, const l45_stage *stage,
                         uint32_t number) noexcept nogil:
    cdef l45_layout layout = _layout(instance, stage, L45_EGRESS)
    cdef const l45_stage_way *way = &stage.ways[L45_EGRESS]
    cdef uint32_t first = connection.first[L45_EGRESS]
    return first + <uint32_t> _back(&layout, way, stream_offset(number, first, way.near_wire))


# --- egress ----------------------------------------------------------------------------------------------------------

cdef l45_verdict stage_egress(l45_context *context, const l45_instance *instance, l45_connection *connection,
                              l45_stage *stage, l45_packet *packet) noexcept nogil:
    """From the stream side to the wire side. DROP: there is no room for what is to be inserted."""
    cdef uint8_t flags = tcp_flags(packet)
    cdef l45_layout sent = _layout(instance, stage, L45_EGRESS)
    cdef l45_layout received = _layout(instance, stage, L45_INGRESS)
    cdef l45_stage scratch
    cdef int result
    if sent.inserted == NULL and received.inserted == NULL:
        return _in_place(context, instance, connection, stage, packet)
    begin_edit(packet)
    if flags & TCP_SYN:  # what it carries stays: nobody knew yet that the peer would understand
        if flags & TCP_ACK:
            _write_window(packet, _wider(&received, 0, 0, tcp_window(packet), 0))
        return L45_REWRITTEN
    if flags & TCP_RST:  # its numbers may be those of a stranger's segment that it answers: they move nothing
        scratch = stage[0]
        stage = &scratch
    result = _egress_bytes(context, instance, connection, stage, &sent, packet)
    if flags & TCP_ACK:
        _egress_acknowledgement(connection, stage, &received, packet)
    return L45_REWRITTEN if result == 0 else L45_DROP


cdef l45_verdict _in_place(l45_context *context, const l45_instance *instance, l45_connection *connection,
                           l45_stage *stage, l45_packet *packet) noexcept nogil:
    """A stage that inserts nothing in either direction: all numbers stay."""
    cdef uint8_t flags = tcp_flags(packet)
    cdef uint8_t way = packet.direction
    cdef int64_t offset
    if flags & TCP_SYN:
        return L45_PASS
    offset = stream_offset(tcp_sequence(packet), connection.first[way], stage.ways[way].near_stream)
    if way == L45_EGRESS and not flags & TCP_RST:
        _note(&stage.ways[L45_EGRESS], offset)
        if flags & TCP_ACK:
            _note(&stage.ways[L45_INGRESS], stream_offset(
                tcp_acknowledgement(packet), connection.first[L45_INGRESS], stage.ways[L45_INGRESS].near_stream))
    if flags & TCP_FIN:
        stage.ways[way].fin = offset + payload_bytes(packet)
    if payload_bytes(packet) == 0 or not instance.runs[way]:
        return L45_PASS
    _change(context, instance, way, offset, packet)
    return L45_REWRITTEN


cdef inline void _note(l45_stage_way *way, int64_t offset) noexcept nogil:
    way.near_stream = offset
    way.near_wire = offset


cdef int _egress_bytes(l45_context *context, const l45_instance *instance, l45_connection *connection,
                       l45_stage *stage, const l45_layout *layout, l45_packet *packet) noexcept nogil:
    cdef l45_stage_way *way = &stage.ways[L45_EGRESS]
    cdef uint8_t *header = tcp_header(packet)
    cdef uint32_t count = payload_bytes(packet)
    cdef int64_t wire = _trusted(layout, way, tcp_sequence(packet), connection.first[L45_EGRESS])
    stage.sent = max(stage.sent, way.near_stream + count + ((tcp_flags(packet) & TCP_FIN) != 0))
    if tcp_flags(packet) & TCP_FIN:
        way.fin = way.near_stream + count
    store_be32(header + TCP_SEQUENCE, connection.first[L45_EGRESS] + <uint32_t> wire)
    if tcp_flags(packet) & TCP_URG:
        _write_urgent(header, layout_wire(layout, way.near_stream + load_be16(header + TCP_URGENT)) - wire)
    if count == 0:
        return 0
    if instance.runs[L45_EGRESS]:
        _change(context, instance, L45_EGRESS, way.near_stream, packet)
    return runs_insert(context, instance.stream, layout, way.near_stream, packet)


cdef void _egress_acknowledgement(l45_connection *connection, l45_stage *stage, const l45_layout *layout,
                                  l45_packet *packet) noexcept nogil:
    cdef l45_stage_way *way = &stage.ways[L45_INGRESS]
    cdef uint32_t first = connection.first[L45_INGRESS]
    cdef int64_t wire = _trusted(layout, way, tcp_acknowledgement(packet), first)
    store_be32(tcp_header(packet) + TCP_ACKNOWLEDGEMENT, first + <uint32_t> wire)
    stage.edge = max(stage.edge, way.near_stream + (<int64_t> tcp_window(packet) << connection.scale[L45_EGRESS]))
    if layout.inserted != NULL:
        _write_window(packet, _wider(layout, wire, way.near_stream, tcp_window(packet), connection.scale[L45_EGRESS]))
        _map_blocks(layout, way, first, way.near_stream, packet, False)


cdef inline uint32_t _wider(const l45_layout *layout, int64_t wire, int64_t offset, uint32_t units,
                            uint8_t scale) noexcept nogil:
    """The window behind `offset`, which is `wire` there, for wire bytes. Rounded up: _narrower rounds down to what it
    was."""
    cdef int64_t wire_bytes = layout_wire(layout, offset + (<int64_t> units << scale)) - wire
    return <uint32_t> min((wire_bytes + (1 << scale) - 1) >> scale, <int64_t> LARGEST_FIELD)


# --- ingress ----------------------------------------------------------------------------------------------------------

cdef l45_verdict stage_ingress(l45_context *context, const l45_instance *instance, l45_connection *connection,
                               l45_stage *stage, l45_packet *packet) noexcept nogil:
    """From the wire side to the stream side. DROP: the module does not like what the peer inserted."""
    cdef uint8_t flags = tcp_flags(packet)
    cdef l45_layout sent = _layout(instance, stage, L45_EGRESS)
    cdef l45_layout received = _layout(instance, stage, L45_INGRESS)
    if sent.inserted == NULL and received.inserted == NULL:
        return _in_place(context, instance, connection, stage, packet)
    begin_edit(packet)
    if flags & TCP_SYN:
        if flags & TCP_ACK:
            _write_window(packet, _narrower(&sent, 0, 0, tcp_window(packet), 0))
        return L45_REWRITTEN
    return _ingress_bytes(context, instance, connection, stage, &received, packet,
                          flags & TCP_ACK and _ingress_acknowledgement(connection, stage, &sent, packet))


cdef l45_verdict _ingress_bytes(l45_context *context, const l45_instance *instance, l45_connection *connection,
                                l45_stage *stage, const l45_layout *layout, l45_packet *packet,
                                bint plausible) noexcept nogil:
    cdef l45_stage_way *way = &stage.ways[L45_INGRESS]
    cdef uint8_t *header = tcp_header(packet)
    cdef uint32_t first = connection.first[L45_INGRESS]
    cdef uint32_t count = payload_bytes(packet)
    cdef int64_t wire = stream_offset(tcp_sequence(packet), first, way.near_wire)
    cdef bint bare = count == 0 and not tcp_flags(packet) & TCP_FIN
    cdef int64_t offset = _back(layout, way, wire) if bare else layout_back(layout, wire)
    cdef int64_t end = layout_back(layout, wire + count)
    if plausible and way.near_stream - 1 <= end <= max(stage.edge, <int64_t> LARGEST_FIELD):
        stage.widest = max(stage.widest, <int64_t> tcp_window(packet) << connection.scale[L45_INGRESS])
        if not bare:
            _peers_end(way, end, tcp_flags(packet) & TCP_FIN)
    store_be32(header + TCP_SEQUENCE, first + <uint32_t> offset)
    if tcp_flags(packet) & TCP_URG:
        _write_urgent(header, layout_back(layout, wire + load_be16(header + TCP_URGENT)) - offset)
    if count == 0:
        return L45_REWRITTEN
    if runs_remove(context, instance.stream, layout, wire, offset, packet) != 0:
        return L45_DROP
    if instance.runs[L45_INGRESS]:
        _change(context, instance, L45_INGRESS, offset, packet)
    return L45_REWRITTEN


cdef inline void _peers_end(l45_stage_way *way, int64_t end, bint fin) noexcept nogil:
    """A FIN counts that our kernel may take, until bytes behind it come that it may take too."""
    if fin:
        way.fin = end
    elif end > way.fin:
        way.fin = NO_FIN


cdef bint _ingress_acknowledgement(l45_connection *connection, l45_stage *stage, const l45_layout *layout,
                                   l45_packet *packet) noexcept nogil:
    """Whether our kernel may believe it (RFC 5961 section 5)."""
    cdef l45_stage_way *way = &stage.ways[L45_EGRESS]
    cdef uint32_t first = connection.first[L45_EGRESS]
    cdef int64_t wire = stream_offset(tcp_acknowledgement(packet), first, way.near_wire)
    cdef int64_t offset = _back(layout, way, wire)
    store_be32(tcp_header(packet) + TCP_ACKNOWLEDGEMENT, first + <uint32_t> offset)
    if layout.inserted != NULL:
        _write_window(packet, _narrower(layout, wire, offset, tcp_window(packet), connection.scale[L45_INGRESS]))
        _map_blocks(layout, way, first, way.near_wire, packet, True)
    return 0 <= stage.sent - offset <= 2 * max(stage.widest, <int64_t> LARGEST_FIELD)


cdef inline uint32_t _narrower(const l45_layout *layout, int64_t wire, int64_t offset, uint32_t units,
                               uint8_t scale) noexcept nogil:
    cdef int64_t edge = layout_back(layout, wire + (<int64_t> units << scale))
    return <uint32_t> (max(edge - offset, <int64_t> 0) >> scale)


# --- both -------------------------------------------------------------------------------------------------------------

cdef struct change_of:
    l45_context *context
    const l45_instance *instance
    uint8_t direction


cdef void _change(l45_context *context, const l45_instance *instance, uint8_t direction, int64_t offset,
                  l45_packet *packet) noexcept nogil:
    """What stands in front of offset 0 was carried by the SYN, and stays."""
    cdef uint32_t count = payload_bytes(packet)
    cdef uint32_t at = 0 if offset >= 0 else <uint32_t> min(<int64_t> count, -offset)
    cdef change_of call
    if instance.stream.change == NULL:
        return
    call.context = context
    call.instance = instance
    call.direction = direction
    change_in_pieces(packet, at, count, _change_piece, &call, <uint64_t> (offset + at))


cdef void _change_piece(const void *using, uint64_t position, uint8_t *bytes, uint32_t count) noexcept nogil:
    cdef const change_of *call = <const change_of *> using
    call.instance.stream.change(call.context, call.direction, position, bytes, count)


cdef inline void _write_window(l45_packet *packet, uint32_t units) noexcept nogil:
    store_be16(tcp_header(packet) + TCP_WINDOW, units)


cdef inline void _write_urgent(uint8_t *header, int64_t distance) noexcept nogil:
    store_be16(header + TCP_URGENT, <uint32_t> min(max(distance, <int64_t> 0), <int64_t> LARGEST_FIELD))


cdef void _map_blocks(const l45_layout *layout, const l45_stage_way *way, uint32_t first, int64_t near,
                      l45_packet *packet, bint back) noexcept nogil:
    """The edges of SACK blocks (RFC 2018, and RFC 2883 for what was received twice)."""
    cdef l45_option sack = option_find(packet, OPTION_SACK)
    cdef uint32_t at
    cdef int64_t edge
    for at in range(sack.at + 2, sack.at + sack.bytes - 3 if sack.bytes >= 10 else 0, 4):
        edge = stream_offset(load_be32(packet.data + at), first, near)
        edge = _back(layout, way, edge) if back else _out(layout, way, edge)
        store_be32(packet.data + at, first + <uint32_t> edge)
