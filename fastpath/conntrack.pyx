"""See conntrack.pxd."""

from libc.errno cimport ENOENT
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport l45_flow_key
from layer45.fastpath.netlink cimport (
    AF_INET, AF_INET6, CTA_IP_V4_DST, CTA_IP_V4_SRC, CTA_IP_V6_DST, CTA_IP_V6_SRC, CTA_MARK, CTA_MARK_MASK,
    CTA_PROTO_DST_PORT, CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO,
    IPCTNL_MSG_CT_NEW, MSG_DONTWAIT, NFNL_SUBSYS_CTNETLINK, NLA_F_NESTED, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, htonl,
    load_u32, nfgenmsg, nlattr, nlmsghdr, recv, send,
)

cdef enum:
    MESSAGE_BYTES = 160         # more than the longest
    ADDRESS_BYTES = 16
    MAPPED_BYTES = 12           # of an address, in front of one of IPv4


cdef int conntrack_mark(const l45_conntrack *conntrack, const l45_flow_key *key) noexcept nogil:
    """From local to remote it is the original tuple of what this host began, and that of the replies of all else, also
    behind address translation: our hooks see the host's side of it. But for replies to what was sent to a translated
    destination: there it is from remote to local.
    """
    cdef int error = _tell(conntrack, key, False)
    return _tell(conntrack, key, True) if error == ENOENT else error


cdef struct l45_writer:
    uint8_t bytes[MESSAGE_BYTES]
    uint32_t used


cdef int _tell(const l45_conntrack *conntrack, const l45_flow_key *key, bint turned) noexcept nogil:
    """0, or the error number. The kernel has answered when send returns."""
    cdef l45_writer writer
    cdef uint8_t answer[MESSAGE_BYTES * 2]
    cdef nlmsghdr header
    _write(&writer, key, turned, conntrack.bit)
    if send(conntrack.fd, writer.bytes, writer.used, 0) < 0:
        return -1
    if recv(conntrack.fd, answer, sizeof(answer), MSG_DONTWAIT) < <ssize_t> (sizeof(nlmsghdr) + 4):
        return -1
    memcpy(&header, answer, sizeof(header))
    return -<int32_t> load_u32(answer + sizeof(header)) if header.nlmsg_type == NLMSG_ERROR else -1


cdef void _write(l45_writer *writer, const l45_flow_key *key, bint turned, uint32_t bit) noexcept nogil:
    cdef const uint8_t *source = &key.local[0]
    cdef const uint8_t *target = &key.remote[0]
    cdef const uint16_t *source_port = &key.remote_port_be if turned else &key.local_port_be
    cdef const uint16_t *target_port = &key.local_port_be if turned else &key.remote_port_be
    cdef bint mapped = _is_mapped(key.local)
    cdef uint32_t skip = MAPPED_BYTES if mapped else 0
    cdef uint32_t bit_be = htonl(bit)
    cdef uint32_t outer, inner
    cdef nlmsghdr header
    cdef nfgenmsg general
    if turned:
        source, target = target, source
    memset(writer, 0, sizeof(l45_writer))
    memset(&general, 0, sizeof(general))
    general.nfgen_family = AF_INET if mapped else AF_INET6
    writer.used = sizeof(header)
    _put(writer, &general, sizeof(general))
    outer = _begin(writer, CTA_TUPLE_ORIG)  # whichever it is: the kernel looks for both
    inner = _begin(writer, CTA_TUPLE_IP)
    _attribute(writer, CTA_IP_V4_SRC if mapped else CTA_IP_V6_SRC, source + skip, ADDRESS_BYTES - skip)
    _attribute(writer, CTA_IP_V4_DST if mapped else CTA_IP_V6_DST, target + skip, ADDRESS_BYTES - skip)
    _end(writer, inner)
    inner = _begin(writer, CTA_TUPLE_PROTO)
    _attribute(writer, CTA_PROTO_NUM, &key.protocol, 1)
    _attribute(writer, CTA_PROTO_SRC_PORT, source_port, 2)
    _attribute(writer, CTA_PROTO_DST_PORT, target_port, 2)
    _end(writer, inner)
    _end(writer, outer)
    _attribute(writer, CTA_MARK, &bit_be, 4)
    _attribute(writer, CTA_MARK_MASK, &bit_be, 4)
    memset(&header, 0, sizeof(header))
    header.nlmsg_len = writer.used
    header.nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW
    header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK
    memcpy(writer.bytes, &header, sizeof(header))


cdef inline bint _is_mapped(const uint8_t *address) noexcept nogil:
    cdef uint64_t high
    memcpy(&high, address, 8)
    return high == 0 and load_u32(address + 8) == htonl(0xFFFF)


cdef inline void _put(l45_writer *writer, const void *data, uint32_t count) noexcept nogil:
    memcpy(writer.bytes + writer.used, data, count)
    writer.used += (count + 3) & ~<uint32_t> 3


cdef inline void _attribute(l45_writer *writer, int kind, const void *data, uint32_t count) noexcept nogil:
    cdef nlattr header
    header.nla_len = <uint16_t> (sizeof(nlattr) + count)
    header.nla_type = <uint16_t> kind
    _put(writer, &header, sizeof(header))
    _put(writer, data, count)


cdef inline uint32_t _begin(l45_writer *writer, int kind) noexcept nogil:
    """A nested attribute; where it begins."""
    cdef uint32_t start = writer.used
    _attribute(writer, kind | NLA_F_NESTED, NULL, 0)
    return start


cdef inline void _end(l45_writer *writer, uint32_t start) noexcept nogil:
    cdef uint16_t count = <uint16_t> (writer.used - start)
    memcpy(writer.bytes + start, &count, 2)
