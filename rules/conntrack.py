"""Asks conntrack, by netlink, for connections with a mark (linux/netfilter/nfnetlink_conntrack.h)."""

import socket
import struct

NETLINK_NETFILTER = 12
GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
DUMP = 0x301  # NLM_F_REQUEST, NLM_F_ROOT, NLM_F_MATCH
ATTRIBUTE_MARK, ATTRIBUTE_MARK_MASK = 8, 21
ERROR, DONE = 2, 3
HEADER = struct.Struct("=IHHII")
READ_BYTES = 1 << 16
TIME_OUT_S = 2.0


def has_mark(value: int, mask: int) -> bool | None:
    """Whether a connection of this network namespace has these bits in its mark; None: one cannot tell.

    The kernel looks at all connections, and tells of the fitting ones alone.
    """
    marks = ((ATTRIBUTE_MARK, value), (ATTRIBUTE_MARK_MASK, mask))
    body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
    body += b"".join(struct.pack("=HH", 8, kind) + struct.pack("!I", number) for kind, number in marks)
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        ) as asked:
            asked.settimeout(TIME_OUT_S)
            asked.send(HEADER.pack(HEADER.size + len(body), GET, DUMP, 1, 0) + body)
            kind = _first_kind(asked.recv(READ_BYTES))
    except OSError:
        return None
    return None if kind == ERROR else kind != DONE


def _first_kind(messages: bytes) -> int:
    return int(HEADER.unpack_from(messages)[1])
