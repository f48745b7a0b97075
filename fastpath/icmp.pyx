"""See icmp.pxd."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from layer45.fastpath.abi cimport L45_EGRESS, L45_PASS, L45_REWRITTEN, L45_TRUNCATED, l45_packet, l45_verdict
from layer45.fastpath.chain cimport l45_instance
from layer45.fastpath.checksum cimport replace_summed
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.flow cimport PHASE_CUSTOMIZED, connection_of, flow_seek, l45_entry, stages_of
from layer45.fastpath.packet cimport (
    PARSE_SHORT, PARSED, PROTOCOL_TCP, SMALLEST_IPV6_MTU, load_be16, load_be32, parse, parse_result, store_be32,
)
from layer45.fastpath.stream cimport l45_connection, l45_stage, stage_back
from layer45.fastpath.tcp cimport TCP_HEADER_BYTES, TCP_SEQUENCE, stream_offset

cdef enum:
    PROTOCOL_ICMP = 1
    PROTOCOL_ICMPV6 = 58
    ICMP_BYTES = 8
    QUOTED_BYTES = 8            # of the segment, at least: ports and sequence number
    UNREACHABLE = 3             # RFC 792: type
    TOO_LONG = 4                # its code
    TOO_BIG = 2                 # RFC 4443
    SMALLEST_MTU = 552          # net.ipv4.route.min_pmtu
    LARGEST_FIELD = 0xFFFF


cdef l45_verdict icmp_back(l45_worker *worker, l45_packet *packet) noexcept nogil:
    cdef uint8_t *error = packet.data + packet.l4_offset
    cdef l45_packet quoted = packet[0]
    cdef l45_entry *entry
    cdef uint8_t *sequence
    cdef uint8_t word[4]
    cdef uint32_t number
    cdef bint plausible
    if not _is_error(packet) or packet.flags & L45_TRUNCATED:
        return L45_PASS
    quoted.data = error + ICMP_BYTES
    quoted.flags = L45_TRUNCATED
    quoted.direction = L45_EGRESS
    if not _quotes_tcp(&quoted):
        return L45_PASS
    entry = flow_seek(&worker.flows, &quoted)
    if entry == NULL or entry.phase != PHASE_CUSTOMIZED:
        return L45_PASS
    sequence = quoted.data + quoted.l4_offset + TCP_SEQUENCE
    plausible = _map_back(entry, load_be32(sequence), &number)
    store_be32(word, number)
    replace_summed(error + 2, sequence, word, sizeof(word))
    if plausible:
        _learn_mtu(connection_of(entry), packet.ip_version, error)
    return L45_REWRITTEN


cdef inline bint _is_error(const l45_packet *packet) noexcept nogil:
    cdef ptrdiff_t available = packet.tail - packet.data - packet.l4_offset
    cdef uint8_t kind
    if available < ICMP_BYTES:
        return False
    kind = packet.data[packet.l4_offset]
    if packet.ip_version == 4:
        return packet.protocol == PROTOCOL_ICMP and kind in (3, 11, 12)
    return packet.protocol == PROTOCOL_ICMPV6 and kind in (1, 2, 3, 4)


cdef inline bint _quotes_tcp(l45_packet *quoted) noexcept nogil:
    """A router need not quote more than 8 bytes of the segment."""
    cdef parse_result result = parse(quoted)
    if result != PARSED and result != PARSE_SHORT:
        return False
    quoted.payload_offset = quoted.l4_offset
    return quoted.l4_offset >= TCP_HEADER_BYTES and quoted.protocol == PROTOCOL_TCP \
        and quoted.tail - quoted.data - quoted.l4_offset >= QUOTED_BYTES


cdef bint _map_back(const l45_entry *entry, uint32_t number, uint32_t *ours) noexcept nogil:
    """The number that our kernel sent, and whether it may be under way: others are a stranger's guess."""
    cdef const l45_instance *instance
    cdef const l45_stage *stage
    cdef int64_t behind
    cdef bint plausible = False
    cdef uint32_t at
    for at in range(entry.chain.count):
        instance = &entry.chain.instances[entry.chain.count - 1 - at]
        if instance.stream != NULL:
            stage = &stages_of(entry)[instance.stage]
            number = stage_back(instance, connection_of(entry), stage, number)
            behind = stage.sent - stream_offset(
                number, connection_of(entry).first[L45_EGRESS], stage.ways[L45_EGRESS].near_stream)
            plausible = plausible or 0 < behind <= 2 * max(stage.widest, <int64_t> LARGEST_FIELD)
    ours[0] = number
    return plausible


cdef void _learn_mtu(l45_connection *connection, uint8_t ip_version, const uint8_t *error) noexcept nogil:
    """Never less than what the kernel would heed."""
    cdef uint32_t mtu
    if ip_version == 4:
        if error[0] != UNREACHABLE or error[1] != TOO_LONG or load_be16(error + 6) == 0:
            return
        mtu = max(load_be16(error + 6), <uint32_t> SMALLEST_MTU)
    elif error[0] == TOO_BIG:
        mtu = min(max(load_be32(error + 4), <uint32_t> SMALLEST_IPV6_MTU), <uint32_t> LARGEST_FIELD)
    else:
        return
    if connection.path_mtu == 0 or mtu < connection.path_mtu:
        connection.path_mtu = <uint16_t> mtu
