"""Asks conntrack, by netlink, for connections with a mark, and changes what it knows of them.

linux/netfilter/nfnetlink_conntrack.h. The kernel looks at all connections, and tells of the fitting ones.
"""

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

NETLINK_NETFILTER = 12
NEW, GET = 1 << 8, 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK; IPCTNL_MSG_CT_…
REQUEST, DUMP = 1, 0x301  # NLM_F_REQUEST; with NLM_F_ROOT and NLM_F_MATCH
TUPLE, PROTOCOL_INFO, MARK, ZONE, MARK_MASK = 1, 4, 8, 18, 21  # CTA_…
TCP_INFO, TCP_FLAGS_ORIGINAL, TCP_FLAGS_REPLY = 1, 4, 5  # CTA_PROTOINFO_…
LIBERAL = 0x08  # IP_CT_TCP_FLAG_BE_LIBERAL
ERROR, DONE = 2, 3
NESTED, TYPE_MASK = 0x8000, 0x3FFF  # NLA_F_NESTED; without it
HEADER = struct.Struct("=IHHII")
GENERAL_BYTES = 4
READ_BYTES = 1 << 16
TIME_OUT_S = 2.0


def has_mark(value: int, mask: int) -> bool | None:
    """Whether a connection of this network namespace has these bits in its mark; None: one cannot tell."""
    try:
        with _opened() as asked:
            _dump(asked, value, mask)
            kind = int(HEADER.unpack_from(asked.recv(READ_BYTES))[1])
    except OSError:
        return None
    return None if kind == ERROR else kind != DONE


def clear(bit: int, where: Callable[[int], bool]) -> None:
    """Takes the bit out of the marks of which `where` says so.

    A kernel that does not talk of connections has not heard of the bit either: it came by the same way.
    """
    without = _attribute(MARK, struct.pack("!I", 0)) + _attribute(MARK_MASK, struct.pack("!I", bit))
    _change_all(bit, without, where)


def trust(marks: int) -> None:
    """TCP connections with any of these bits in their mark have no segment that conntrack finds invalid.

    Without rules that ask it, conntrack sees no packets. It picks windows up when such rules come again, and
    of a burst the first segment tells too little: the others had no connection then, and so no class.
    """
    flags = struct.pack("=BB", LIBERAL, LIBERAL)
    both = _attribute(TCP_FLAGS_ORIGINAL, flags) + _attribute(TCP_FLAGS_REPLY, flags)
    liberal = _nested(PROTOCOL_INFO, _nested(TCP_INFO, both))
    for bit in (1 << place for place in range(32) if marks >> place & 1):
        _change_all(bit, liberal, lambda mark: True)


def _change_all(bit: int, change: bytes, where: Callable[[int], bool]) -> None:
    """The connections with this bit in their mark, and of whose mark `where` says so."""
    with contextlib.suppress(OSError), _opened() as asked, _opened() as told:
        _dump(asked, bit, bit)
        for family, attributes in _connections(asked):
            (mark,) = struct.unpack("!I", attributes[MARK])
            if mark & bit and where(mark):
                _change(told, family, attributes, change)


def _opened() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    made.settimeout(TIME_OUT_S)
    return made


def _dump(asked: socket.socket, value: int, mask: int) -> None:
    marks = _attribute(MARK, struct.pack("!I", value)) + _attribute(MARK_MASK, struct.pack("!I", mask))
    _send(asked, GET, DUMP, socket.AF_UNSPEC, marks)


def _change(told: socket.socket, family: int, attributes: dict[int, bytes], change: bytes) -> None:
    """One that has gone meanwhile is no error: what the kernel answers is not read."""
    zone = _attribute(ZONE, attributes[ZONE]) if ZONE in attributes else b""
    _send(told, NEW, REQUEST, family, _nested(TUPLE, attributes[TUPLE]) + zone + change)


def _send(by: socket.socket, kind: int, flags: int, family: int, attributes: bytes) -> None:
    body = struct.pack("=BBH", family, 0, 0) + attributes
    by.send(HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value.ljust(len(value) + 3 & ~3, b"\0")


def _nested(kind: int, attributes: bytes) -> bytes:
    return _attribute(kind | NESTED, attributes)


def _connections(asked: socket.socket) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Family and attributes of each connection that the kernel tells of, those with a mark."""
    while True:
        messages, at = asked.recv(READ_BYTES), 0
        while at + HEADER.size <= len(messages):
            length, kind, *_ = HEADER.unpack_from(messages, at)
            body = messages[at + HEADER.size : at + length]
            if kind == DONE:
                return
            if kind == ERROR:
                raise OSError(-struct.unpack_from("=i", body)[0], "the kernel lists no connections")
            attributes = dict(_attributes(body[GENERAL_BYTES:]))
            if MARK in attributes:
                yield body[0], attributes
            at += length + 3 & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        yield kind & TYPE_MASK, data[at + 4 : at + length]
        at += max(length + 3 & ~3, 4)
