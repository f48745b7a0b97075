"""See copies.pxd."""

import os
import socket
import struct

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from layer45.fastpath.abi cimport L45_EGRESS, L45_GSO, L45_INGRESS, L45_TRUNCATED, l45_packet
from layer45.fastpath.core cimport l45_worker
from layer45.fastpath.counters cimport (
    COUNT_COPIES_LOST, COUNT_KERNEL_ERRORS, COUNT_MALFORMED, COUNT_PASSED, COUNT_RECEIVED,
)
from layer45.fastpath.netlink cimport *
from layer45.fastpath.packet cimport load_be16, load_be32
from layer45.fastpath.pool cimport ORIGIN_QUEUED, l45_carrier
from layer45.fastpath.receive cimport NO_DIRECTION, class_of, l45_marks, l45_slots
from layer45.fastpath.worker cimport worker_process

from layer45.fastpath.sockets import attribute, set_up, tell

cdef enum:
    BEYOND_BYTES = 65536    # what an IPv4 packet has at least whose length field says 0 (BIG TCP)
    HOP_BY_HOP = 0
    JUMBO_OPTION = 0xC204   # type and length (RFC 2675 section 2)


cdef struct l45_copy:
    l45_carrier carrier
    uint32_t sequence
    bint numbered


# --- a message, packet by packet --------------------------------------------------------------------------------------

cdef void copies_look(l45_worker *worker, const l45_slots *slots, uint32_t at, const l45_marks *marks,
                      uint32_t *next) noexcept nogil:
    cdef uint8_t *start = <uint8_t *> slots.pieces[at].iov_base
    cdef uint8_t *end = start + min(<size_t> slots.messages[at].msg_len, slots.pieces[at].iov_len)
    cdef nlmsghdr header
    while end - start >= <ssize_t> (sizeof(nlmsghdr) + sizeof(nfgenmsg)):
        memcpy(&header, start, sizeof(header))
        if header.nlmsg_len < sizeof(nlmsghdr) + sizeof(nfgenmsg) or header.nlmsg_len > <size_t> (end - start):
            return
        if header.nlmsg_type == (NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET):
            _look(worker, start + sizeof(nlmsghdr) + sizeof(nfgenmsg), start + header.nlmsg_len, marks, next)
        elif header.nlmsg_type == NLMSG_ERROR and load_u32(start + sizeof(nlmsghdr)):
            worker.counters[COUNT_KERNEL_ERRORS] += 1
        start += min(<size_t> (header.nlmsg_len + 3) & ~<size_t> 3, <size_t> (end - start))


cdef void _look(l45_worker *worker, uint8_t *attributes, uint8_t *end, const l45_marks *marks,
                uint32_t *next) noexcept nogil:
    cdef l45_copy copy
    memset(&copy, 0, sizeof(copy))
    copy.carrier.packet.direction = NO_DIRECTION
    copy.carrier.packet.origin = ORIGIN_QUEUED
    copy.carrier.packet.time_ns = worker.now_ns
    _read_attributes(attributes, end, marks, &copy)
    if copy.numbered:
        worker.counters[COUNT_COPIES_LOST] += <uint32_t> (copy.sequence - next[0])
        next[0] = copy.sequence + 1
    if copy.carrier.packet.data != NULL and copy.carrier.packet.direction != NO_DIRECTION:
        _measure(&copy.carrier.packet)
        worker_process(worker, &copy.carrier)
        return
    worker.counters[COUNT_RECEIVED] += 1
    worker.counters[COUNT_PASSED] += 1
    worker.counters[COUNT_MALFORMED] += 1


cdef void _read_attributes(uint8_t *at, uint8_t *end, const l45_marks *marks, l45_copy *copy) noexcept nogil:
    cdef nlattr header
    while end - at >= <ssize_t> sizeof(nlattr):
        memcpy(&header, at, sizeof(header))
        if header.nla_len < sizeof(nlattr) or header.nla_len > end - at:
            return
        _read_attribute(header.nla_type & NLA_TYPE_MASK, at + sizeof(nlattr),
                        header.nla_len - <uint32_t> sizeof(nlattr), marks, copy)
        at += (header.nla_len + 3) & ~3


cdef inline void _read_attribute(uint32_t kind, uint8_t *value, uint32_t count, const l45_marks *marks,
                                 l45_copy *copy) noexcept nogil:
    cdef l45_packet *packet = &copy.carrier.packet
    cdef nfulnl_msg_packet_hdr general
    if kind == NFULA_PAYLOAD:
        packet.head = packet.data = value
        packet.tail = packet.end = value + count
    elif kind == NFULA_PACKET_HDR:
        memcpy(&general, value, sizeof(general))
        if general.hook == NF_INET_LOCAL_OUT:
            packet.direction = L45_EGRESS
        elif general.hook == NF_INET_LOCAL_IN:
            packet.direction = L45_INGRESS
    elif kind == NFULA_MARK:
        packet.class_id = class_of(marks, ntohl(load_u32(value)))
    elif kind == NFULA_SEQ:
        copy.sequence = ntohl(load_u32(value))
        copy.numbered = True


cdef inline void _measure(l45_packet *packet) noexcept nogil:
    """How long the packet was: NFLOG does not say it beside the copy, as a queue does."""
    cdef uint32_t count = <uint32_t> (packet.tail - packet.data)
    packet.wire_bytes = count
    if count >= 20 and packet.data[0] >> 4 == 4:
        packet.wire_bytes = load_be16(packet.data + 2)
    elif count >= 40 and packet.data[0] >> 4 == 6:
        packet.wire_bytes = load_be16(packet.data + 4)
        packet.wire_bytes += 40 if packet.wire_bytes or count == 40 else 0
    if packet.wire_bytes == 0:
        packet.flags |= L45_GSO
        packet.wire_bytes = _beyond(packet.data, count)
    if packet.wire_bytes > count:
        packet.flags |= L45_TRUNCATED


cdef uint32_t _beyond(const uint8_t *data, uint32_t count) noexcept nogil:
    """The length of one that the length field has no room for, where it is written elsewhere; else the least."""
    if data[0] >> 4 == 6 and count >= 48 and data[6] == HOP_BY_HOP and load_be16(data + 42) == JUMBO_OPTION:
        return max(load_be32(data + 44) + 40, <uint32_t> BEYOND_BYTES)
    return BEYOND_BYTES


# --- its life ---------------------------------------------------------------------------------------------------------

NETLINK_NETFILTER = 12
THRESHOLD = 192         # packets in a message, at most; the engine's CPU for a packet: 0.34 us, with 64: 0.75
FLUSH_10_MS = 1         # how long the kernel waits for more, in the unit of NFULA_CFG_TIMEOUT
MESSAGE_BYTES = 65024   # what it makes room for: with its own skb_shared_info, 64 KiB
BESIDE_BYTES = 1024     # what a packet takes in a message beside its bytes, at most


def room_bytes(copy_bytes: int) -> int:
    """The longest message of a group that copies so many bytes of a packet: the kernel rounds its buffers up."""
    return 2 * _buffer_bytes(copy_bytes)


def _buffer_bytes(copy_bytes: int) -> int:
    return max(MESSAGE_BYTES, copy_bytes + BESIDE_BYTES)


class Group:
    """An NFLOG group, bound: until `unbind`, the kernel puts copies into the socket behind get_fd().

    number: the group's. copy_bytes: of each packet. OSError when the kernel has no NFLOG; PermissionError when the
    group is in use, or the process lacks the privilege.
    """

    def __init__(self, number: int, copy_bytes: int) -> None:
        self.number = number
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            set_up(self._socket.fileno())
            self._configure(copy_bytes)
        except BaseException:
            self._socket.close()
            raise

    def _configure(self, copy_bytes: int) -> None:
        """In one message, so that there is no copy without a number."""
        self._ask(
            NLM_F_REQUEST | NLM_F_ACK,
            attribute(NFULA_CFG_CMD, struct.pack("B", NFULNL_CFG_CMD_BIND))
            + attribute(NFULA_CFG_MODE, struct.pack("!IBx", copy_bytes, NFULNL_COPY_PACKET))
            + attribute(NFULA_CFG_NLBUFSIZ, struct.pack("!I", _buffer_bytes(copy_bytes)))
            + attribute(NFULA_CFG_TIMEOUT, struct.pack("!I", FLUSH_10_MS))
            + attribute(NFULA_CFG_QTHRESH, struct.pack("!I", THRESHOLD))
            + attribute(NFULA_CFG_FLAGS, struct.pack("!H", NFULNL_CFG_F_SEQ)),
        )
        number = _answer(self._socket)
        if number:
            raise OSError(number, os.strerror(number))

    def _ask(self, flags: int, attributes: bytes) -> None:
        tell(self.get_fd(), NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG, flags, self.number, attributes)

    def get_fd(self) -> int:
        """The socket's descriptor, which stays ours."""
        return self._socket.fileno()

    def finish(self) -> None:
        """The kernel hands over what it has kept for a message, and copies nothing any more; from any thread."""
        self._ask(NLM_F_REQUEST, attribute(NFULA_CFG_CMD, struct.pack("B", NFULNL_CFG_CMD_UNBIND)))

    def unbind(self) -> None:
        """What was not read is lost."""
        self._socket.close()


def _answer(netlink: socket.socket) -> int:
    """The error number of the kernel's answer to the one request; packets that came before it are forgotten."""
    while True:
        got = netlink.recv(1 << 17)
        kind = struct.unpack_from("=H", got, 4)[0]
        if kind == NLMSG_ERROR:
            return -struct.unpack_from("=i", got, 16)[0]
