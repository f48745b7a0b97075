"""See receive.pxd."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport L45_EGRESS, L45_GSO, L45_INGRESS, L45_PARTIAL, L45_TRUNCATED
from layer45.fastpath.netlink cimport (
    NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT, NFNL_SUBSYS_QUEUE, NFQA_CAP_LEN, NFQA_IFINDEX_OUTDEV, NFQA_MARK,
    NFQA_PACKET_HDR, NFQA_PAYLOAD, NFQA_SKB_CSUMNOTREADY, NFQA_SKB_GSO, NFQA_SKB_INFO, NFQNL_MSG_PACKET, NLA_TYPE_MASK,
    NLMSG_ERROR, load_u32, nfgenmsg, nfqnl_msg_packet_hdr, nlattr, nlmsghdr, ntohl,
)
from layer45.fastpath.pool cimport HEAD_ROOM_BYTES, ORIGIN_QUEUED, TAIL_ROOM_BYTES, l45_carrier

cdef enum:
    SLOT_SHIFT_BYTES = 320  # moves each slot on by five cache lines, or 64 KiB strides would meet in one cache set


cdef int slots_start(l45_slots *slots, uint32_t copy_bytes) noexcept nogil:
    """Slots for packets of up to copy_bytes. 0, or -1 when there is no memory."""
    cdef size_t message_bytes = MESSAGE_ROOM_BYTES + copy_bytes
    cdef size_t pages = (HEAD_ROOM_BYTES + message_bytes + TAIL_ROOM_BYTES + 4095) & ~<size_t> 4095
    cdef size_t stride = pages + SLOT_SHIFT_BYTES
    cdef uint32_t at
    memset(slots, 0, sizeof(l45_slots))
    slots.memory = <uint8_t *> calloc(BATCH, stride)
    if slots.memory == NULL:
        return -1
    for at in range(<uint32_t> BATCH):
        slots.pieces[at].iov_base = slots.memory + at * stride + HEAD_ROOM_BYTES
        slots.pieces[at].iov_len = message_bytes
        slots.messages[at].msg_hdr.msg_iov = &slots.pieces[at]
        slots.messages[at].msg_hdr.msg_iovlen = 1
    return 0


cdef void slots_end(l45_slots *slots) noexcept nogil:
    free(slots.memory)
    slots.memory = NULL


cdef void marks_start(l45_marks *marks, uint32_t class_mask) noexcept nogil:
    cdef uint32_t bit = 0, place = 0, width
    marks.runs = 0
    while bit < 32:
        width = 0
        while bit + width < 32 and class_mask >> (bit + width) & 1:
            width += 1
        if width:
            marks.shift[marks.runs] = bit
            marks.mask[marks.runs] = <uint32_t> ((<uint64_t> 1 << width) - 1)
            marks.place[marks.runs] = place
            marks.runs += 1
            place += width
        bit += width + 1


cdef message_kind read_message(l45_slots *slots, uint32_t at, const l45_marks *marks,
                               l45_carrier *carrier) noexcept nogil:
    """Fills a carrier from slot at. What the kernel wrote is trusted to be well formed, but for its lengths."""
    cdef uint8_t *start = <uint8_t *> slots.pieces[at].iov_base
    cdef size_t count = slots.messages[at].msg_len
    cdef nlmsghdr header
    carrier.packet.data = NULL
    if count < sizeof(nlmsghdr) + sizeof(nfgenmsg):
        return MESSAGE_UNREADABLE
    memcpy(&header, start, sizeof(header))
    if header.nlmsg_type == NLMSG_ERROR:
        return MESSAGE_ERROR if load_u32(start + sizeof(nlmsghdr)) else MESSAGE_UNREADABLE
    if header.nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET) or header.nlmsg_len > count:
        return MESSAGE_UNREADABLE
    memset(carrier, 0, sizeof(l45_carrier))
    carrier.packet.direction = NO_DIRECTION
    carrier.packet.head = start - HEAD_ROOM_BYTES
    carrier.packet.end = start + slots.pieces[at].iov_len + TAIL_ROOM_BYTES
    carrier.packet.origin = ORIGIN_QUEUED
    return _read_attributes(start + sizeof(nlmsghdr) + sizeof(nfgenmsg), start + header.nlmsg_len, marks, carrier)


cdef message_kind _read_attributes(uint8_t *attribute, uint8_t *end, const l45_marks *marks,
                                   l45_carrier *carrier) noexcept nogil:
    cdef nlattr header
    cdef bint named = False
    while end - attribute >= <ssize_t> sizeof(nlattr):
        memcpy(&header, attribute, sizeof(header))
        if header.nla_len < sizeof(nlattr) or header.nla_len > end - attribute:
            break
        named |= header.nla_type == NFQA_PACKET_HDR
        _read_attribute(header.nla_type & NLA_TYPE_MASK, attribute + sizeof(nlattr),
                        header.nla_len - <uint32_t> sizeof(nlattr), marks, carrier)
        attribute += (header.nla_len + 3) & ~3
    if not named:
        return MESSAGE_UNREADABLE
    if carrier.packet.data == NULL or carrier.packet.direction == NO_DIRECTION:
        return MESSAGE_UNUSABLE
    return MESSAGE_PACKET


cdef inline void _read_attribute(uint32_t kind, uint8_t *value, uint32_t count, const l45_marks *marks,
                                 l45_carrier *carrier) noexcept nogil:
    cdef nfqnl_msg_packet_hdr packet
    cdef uint32_t info
    if kind == NFQA_PAYLOAD:
        carrier.packet.data = value
        carrier.packet.tail = value + count
        if not carrier.packet.wire_bytes:
            carrier.packet.wire_bytes = count
    elif kind == NFQA_PACKET_HDR:
        memcpy(&packet, value, sizeof(packet))
        carrier.queue_id = ntohl(packet.packet_id)
        if packet.hook == NF_INET_LOCAL_OUT:
            carrier.packet.direction = L45_EGRESS
        elif packet.hook == NF_INET_LOCAL_IN:
            carrier.packet.direction = L45_INGRESS
    elif kind == NFQA_MARK:
        carrier.packet.class_id = class_of(marks, ntohl(load_u32(value)))
    elif kind == NFQA_IFINDEX_OUTDEV:
        carrier.ifindex = ntohl(load_u32(value))
    elif kind == NFQA_CAP_LEN:
        carrier.packet.wire_bytes = ntohl(load_u32(value))
        carrier.packet.flags |= L45_TRUNCATED
    elif kind == NFQA_SKB_INFO:
        info = ntohl(load_u32(value))
        carrier.packet.flags |= (L45_PARTIAL if info & NFQA_SKB_CSUMNOTREADY else 0) \
            | (L45_GSO if info & NFQA_SKB_GSO else 0)
