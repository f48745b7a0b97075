"""Compiles a match (rules/diversion.py's Selector) to C, without the owner keys: no packet shows them."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport L45_INGRESS, l45_packet
from layer45.fastpath.packet cimport PARSED, PROTOCOL_UDP, load_be16, parse


cdef inline bint _in_network(
        const l45_network *network, uint8_t version, const uint8_t *address) noexcept nogil:
    cdef uint32_t at
    if network.version != version:
        return False
    for at in range(4 if version == 4 else 16):
        if (address[at] & network.mask[at]) != network.address[at]:
            return False
    return True


cdef inline bint _in_networks(
        const l45_network *networks, uint32_t count, uint8_t version, const uint8_t *address) noexcept nogil:
    cdef uint32_t at
    for at in range(count):
        if _in_network(networks + at, version, address):
            return True
    return count == 0


cdef inline bint _in_ports(const l45_ports *ports, uint32_t count, uint16_t port) noexcept nogil:
    cdef uint32_t at
    for at in range(count):
        if ports[at].first <= port <= ports[at].last:
            return True
    return count == 0


cdef bint matches(const l45_match *match, const l45_packet *packet) noexcept nogil:
    """Whether a parsed packet matches. Local is the source on egress, the destination on ingress."""
    return _selects(&match.select, packet) and not (match.has_unless and _selects(&match.unless, packet))


cdef bint _selects(const l45_keys *keys, const l45_packet *packet) noexcept nogil:
    cdef bint ingress = packet.direction == L45_INGRESS
    cdef const uint8_t *source = packet.data + (12 if packet.ip_version == 4 else 8)
    cdef const uint8_t *target = source + (4 if packet.ip_version == 4 else 16)
    cdef const uint8_t *ports = packet.data + packet.l4_offset
    cdef uint16_t local_port = load_be16(ports + 2 * ingress)
    cdef uint16_t remote_port = load_be16(ports + 2 * (not ingress))
    if not (keys.udp if packet.protocol == PROTOCOL_UDP else keys.tcp):
        return False
    if ingress:
        source, target = target, source
    return (_in_ports(keys.local_port, keys.local_port_count, local_port)
            and _in_ports(keys.remote_port, keys.remote_port_count, remote_port)
            and _in_networks(keys.local, keys.local_count, packet.ip_version, source)
            and _in_networks(keys.remote, keys.remote_count, packet.ip_version, target))


cdef void *_allocate(size_t count, size_t each) except NULL:
    cdef void *memory = calloc(count + 1, each)
    if memory == NULL:
        raise MemoryError
    return memory


cdef l45_network *_networks(networks) except NULL:
    cdef l45_network *compiled = <l45_network *> _allocate(len(networks), sizeof(l45_network))
    cdef bytes address, mask
    for at, network in enumerate(networks):
        address, mask = network.network_address.packed, network.netmask.packed
        compiled[at].version = network.version
        memcpy(compiled[at].address, <const char *> address, len(address))
        memcpy(compiled[at].mask, <const char *> mask, len(mask))
    return compiled


cdef l45_ports *_ports(ranges) except NULL:
    cdef l45_ports *compiled = <l45_ports *> _allocate(len(ranges), sizeof(l45_ports))
    for at, (first, last) in enumerate(ranges):
        compiled[at].first, compiled[at].last = first, last
    return compiled


cdef int _compile(l45_keys *keys, select) except -1:
    keys.udp = not select.protocol or "udp" in select.protocol
    keys.tcp = not select.protocol or "tcp" in select.protocol
    keys.local = _networks(select.local)
    keys.local_count = <uint32_t> len(select.local)
    keys.remote = _networks(select.remote)
    keys.remote_count = <uint32_t> len(select.remote)
    keys.local_port = _ports(select.local_port)
    keys.local_port_count = <uint32_t> len(select.local_port)
    keys.remote_port = _ports(select.remote_port)
    keys.remote_port_count = <uint32_t> len(select.remote_port)
    return 0


cdef void _release(l45_keys *keys) noexcept:
    free(keys.local)
    free(keys.remote)
    free(keys.local_port)
    free(keys.remote_port)


cdef class Match:
    """What a policy selects and what it excepts, compiled.

    Owner keys (user, group, cgroup) are assumed to match. An exception that has some is never made: whether
    it applies to a packet is not known, and a policy's chain is what a replay is asked to show.
    """

    def __cinit__(self, select, unless=None):
        _compile(&self.match.select, select)
        self.match.has_unless = unless is not None and not unless.owned
        if self.match.has_unless:
            _compile(&self.match.unless, unless)

    def selects(self, bytes packet, bint ingress=False) -> bool:
        """Whether a whole IP packet would go through the chain. What cannot be parsed would not."""
        cdef l45_packet view
        memset(&view, 0, sizeof(view))
        view.head = view.data = <uint8_t *> <char *> packet
        view.tail = view.end = view.data + len(packet)
        view.direction = ingress
        return parse(&view) == PARSED and matches(&self.match, &view)

    def __dealloc__(self):
        _release(&self.match.select)
        _release(&self.match.unless)
