"""The sockets of a worker's loop, set up before packets flow: a netlink one that they come by, raw ones to send on."""

import errno
import os
import socket
import struct

from layer45.fastpath.netlink cimport (
    NETLINK_NO_ENOBUFS, NFNL_SUBSYS_QUEUE, NFQA_CFG_F_FAIL_OPEN, NFQA_CFG_F_GSO, NFQA_CFG_FLAGS, NFQA_CFG_MASK,
    NFQA_CFG_PARAMS, NFQNL_COPY_PACKET, NFQNL_MSG_CONFIG, NLM_F_ACK, NLM_F_REQUEST, NLMSG_NOOP,
)

BUFFER_BYTES = 16 << 20
IDLE_CHECK_S = 1  # how long a sleeping loop leaves idle flows alone
NETLINK_LEVEL, NETLINK_NETFILTER = 270, 12  # SOL_NETLINK; the socket module lacks them
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # beyond the system's limits, for root; the socket module lacks them


def raw_socket(family: int, exempt_mark: int) -> int:
    """A descriptor to send whole packets on, with a mark; the caller's to close."""
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", exempt_mark))
        raw.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
        if family == socket.AF_INET:
            raw.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        raw.setblocking(False)
        return raw.detach()


def raw_socket_or_none(family: int, exempt_mark: int) -> int:
    """The same; -1 where the host lacks the family: it has no packets of it to copy."""
    try:
        return raw_socket(family, exempt_mark)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            return -1
        raise


def netlink_socket() -> int:
    """A descriptor on which conntrack is told of flows; the caller's to close."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        return netlink.detach()


def set_up(fd: int) -> None:
    """Raises both buffers beyond the system's limits (root), asks to be told nothing of overruns, and bounds sleep."""
    with socket.socket(fileno=os.dup(fd)) as netlink:
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", IDLE_CHECK_S, 0))
        netlink.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
        netlink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        netlink.setsockopt(NETLINK_LEVEL, NETLINK_NO_ENOBUFS, 1)


def configure(fd: int, queue: int, copy_bytes: int, fail_open: bool, gso: bool) -> None:
    """Sets copy range and flags in one message; a refusal comes back as an error message, and is counted.

    NetfilterQueue takes no copy range beyond its own 4 KiB buffer, which we do not use.
    """
    flags = (NFQA_CFG_F_FAIL_OPEN if fail_open else 0) | (NFQA_CFG_F_GSO if gso else 0)
    attributes = attribute(NFQA_CFG_PARAMS, struct.pack("!IB", copy_bytes, NFQNL_COPY_PACKET))
    attributes += attribute(NFQA_CFG_FLAGS, struct.pack("!I", flags))
    attributes += attribute(NFQA_CFG_MASK, struct.pack("!I", NFQA_CFG_F_FAIL_OPEN | NFQA_CFG_F_GSO))
    tell(fd, NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG, NLM_F_REQUEST, queue, attributes)


def tell(fd: int, kind: int, flags: int, number: int, attributes: bytes) -> None:
    """A message of nfnetlink about one queue or group; from any thread."""
    general = struct.pack("!BBH", 0, 0, number)
    header = struct.pack("=IHHII", 16 + len(general) + len(attributes), kind, flags, 0, 0)
    with socket.socket(fileno=os.dup(fd)) as netlink:
        netlink.send(header + general + attributes)


def attribute(kind: int, value: bytes) -> bytes:
    """Length and kind are in the machine's order, values in the network's."""
    return struct.pack("=HH", 4 + len(value), kind) + value.ljust(len(value) + 3 & ~3, b"\0")


def echo(fd: int) -> None:
    """Has the kernel answer on a netlink socket, which wakes whoever reads it; from any thread."""
    with socket.socket(fileno=os.dup(fd)) as netlink:
        netlink.send(struct.pack("=IHHII", 16, NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, 0, 0))
