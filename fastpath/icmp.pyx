"""See icmp.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

from layer45.fastpath.abi cimport (
    L45_EGRESS, L45_PASS, L45_REWRITTEN, L45_TRUNCATED, l45_flow_key, l45_packet, l45_verdict,
)
from layer45.fastpath.chain cimport chain_segment_bytes, l45_chain, l45_instance
from layer45.fastpath.checksum cimport sum_add, sum_bytes, sum_subtract
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.flow cimport (
    PHASE_CUSTOMIZED, connection_of, flow_find, flow_hash, flow_key, l45_entry, stages_of,
)
from layer45.fastpath.packet cimport (
    PARSE_SHORT, PARSED, PROTOCOL_TCP, load_be16, load_be32, parse, parse_result, store_be32,
)
from layer45.fastpath.stream cimport stage_back
from layer45.fastpath.tcp cimport TCP_HEADER_BYTES, TCP_SEQUENCE

cdef enum:
    PROTOCOL_ICMP = 1
    PROTOCOL_ICMPV6 = 58
    ICMP_BYTES = 8
    QUOTED_BYTES = 8            # of the segment, at least: ports and sequence number
    UNREACHABLE = 3             # RFC 792: type
    TOO_LONG = 4                # its code
    TOO_BIG = 2                 # RFC 4443
    SMALLEST_MTU = 576          # what we tell our kernel at least; IPv6 takes 1280 for less
    TIMESTAMP_BYTES = 12


cdef l45_verdict icmp_back(l45_worker *worker, const l45_chain *chain, l45_packet *packet) noexcept nogil:
    cdef uint8_t *error = packet.data + packet.l4_offset
    cdef l45_packet quoted = packet[0]
    cdef l45_entry *entry
    cdef uint8_t *sequence
    if not _is_error(packet) or packet.flags & L45_TRUNCATED:
        return L45_PASS
    quoted.data = error + ICMP_BYTES
    quoted.flags = L45_TRUNCATED
    quoted.direction = L45_EGRESS
    if not _quotes_tcp(&quoted):
        return L45_PASS
    entry = _connection(worker, &quoted)
    if entry == NULL or entry.phase != PHASE_CUSTOMIZED:
        return L45_PASS
    sequence = quoted.data + quoted.l4_offset + TCP_SEQUENCE
    _replace(error, sequence, _our_number(entry, load_be32(sequence)))
    if _tells_mtu(packet, error):
        _replace(error, error + 4, _our_mtu(entry.chain, &quoted, load_be32(error + 4)))
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


cdef inline l45_entry *_connection(l45_worker *worker, const l45_packet *quoted) noexcept nogil:
    cdef l45_flow_key key
    flow_key(quoted, &key)
    return flow_find(&worker.flows, &key, flow_hash(&worker.flows, &key))


cdef uint32_t _our_number(l45_entry *entry, uint32_t number) noexcept nogil:
    cdef const l45_instance *instance
    cdef uint32_t at
    for at in range(entry.chain.count):
        instance = &entry.chain.instances[entry.chain.count - 1 - at]
        if instance.stream != NULL:
            number = stage_back(instance, connection_of(entry), &stages_of(entry)[instance.stage], number)
    return number


cdef inline bint _tells_mtu(const l45_packet *packet, const uint8_t *error) noexcept nogil:
    if packet.ip_version == 4:
        return error[0] == UNREACHABLE and error[1] == TOO_LONG and load_be16(error + 6) != 0
    return error[0] == TOO_BIG


cdef uint32_t _our_mtu(const l45_chain *chain, const l45_packet *quoted, uint32_t field) noexcept nogil:
    """The MTU for our kernel's segments, which the chain makes longer. field: 16 unused bits above it, with IPv4."""
    cdef uint32_t mtu = field & 0xFFFF if quoted.ip_version == 4 else field
    cdef uint32_t header_bytes = quoted.l4_offset + TCP_HEADER_BYTES + TIMESTAMP_BYTES
    if mtu <= header_bytes:
        return field
    return max(chain_segment_bytes(chain, mtu - header_bytes, L45_EGRESS) + header_bytes,
               min(mtu, <uint32_t> SMALLEST_MTU))


cdef void _replace(uint8_t *error, uint8_t *at, uint32_t value) noexcept nogil:
    """32 bits of the message, and its checksum (RFC 1624)."""
    cdef uint8_t word[4]
    cdef uint16_t field
    cdef uint32_t total
    store_be32(word, value)
    memcpy(&field, error + 2, 2)
    total = sum_subtract(field ^ 0xFFFF, sum_bytes(at, 4))
    memcpy(at, word, 4)
    field = <uint16_t> (sum_add(total, sum_bytes(word, 4)) ^ 0xFFFF)
    memcpy(error + 2, &field, 2)
