"""Every TCP and UDP socket of this network namespace, as `ss` sees it: NETLINK_SOCK_DIAG.

    request: nlmsghdr | inet_diag_req_v2      answer, one a socket: nlmsghdr | inet_diag_msg | attributes

Without the sockets that no program has any more (TIME_WAIT, orphans): no owner, so no policy by one.
"""

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from layer45.rules.errors import RulesError
from layer45.rules.socket_end import (
    ANY_STATE,
    NETLINK_SOCK_DIAG,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    SOCK_DIAG_BY_FAMILY,
    TIMEOUT_S,
)

NLM_F_DUMP, NLMSG_DONE, NLM_F_DUMP_INTR = 0x300, 3, 0x10
HEADER, MESSAGE = struct.Struct("=IHHII"), struct.Struct("=BBBB2s2s16s16sI8sIIIII")
INET_DIAG_SKV6ONLY, INET_DIAG_MARK, INET_DIAG_CGROUP_ID = 11, 15, 21
STATES = (
    "", "established", "syn-sent", "syn-received", "fin-wait-1", "fin-wait-2", "time-wait", "closed",
    "close-wait", "last-ack", "listening", "closing", "syn-received",
)  # fmt: skip
PROTOCOLS = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP}
READ_BYTES = 1 << 18
TRIES = 3

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Socket:
    """local, remote None: any, none. families: IP versions it speaks. cgroup: the kernel's number of it."""

    protocol: str
    local: Address | None
    local_port: int
    remote: Address | None
    remote_port: int
    families: frozenset[int]
    state: str
    user: int
    inode: int
    mark: int
    cgroup: int


def sockets() -> list[Socket]:
    """Raises RulesError."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
            diag.settimeout(TIMEOUT_S)
            found = (
                _socket(protocol, family, message)
                for protocol in PROTOCOLS
                for family in (socket.AF_INET, socket.AF_INET6)
                for message in _all(diag, family, PROTOCOLS[protocol])
            )
            return [each for each in found if each.inode]
    except OSError as error:
        raise RulesError(f"the kernel does not tell its sockets: {error.strerror or error}") from None


def _all(diag: socket.socket, family: int, protocol: int) -> list[bytes]:
    """The answers' contents; again where sockets came and went so fast that the kernel lost its place."""
    for _ in range(TRIES):
        found: list[bytes] = []
        if _dump(diag, family, protocol, found):
            break
    return found


def _dump(diag: socket.socket, family: int, protocol: int, into: list[bytes]) -> bool:
    """Whether the kernel is sure that this is all."""
    request = struct.pack("=BBBBI", family, protocol, 0, 0, ANY_STATE) + bytes(48)
    head = HEADER.pack(HEADER.size + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
    diag.send(head + request)
    whole = True
    while True:
        for kind, flags, content in _messages(diag.recv(READ_BYTES)):
            whole = whole and not flags & NLM_F_DUMP_INTR
            if kind == NLMSG_DONE:
                return whole
            if kind == NLMSG_ERROR:
                return _refused(content)
            into.append(content)


def _refused(content: bytes) -> bool:
    """A family or protocol that the kernel does not have has no sockets."""
    (negative,) = struct.unpack_from("=i", content)
    if -negative in (errno.ENOENT, errno.EAFNOSUPPORT):
        return True
    raise OSError(-negative, os.strerror(-negative))


def _messages(received: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and content of each."""
    at = 0
    while at + HEADER.size <= len(received):
        length, kind, flags, _, _ = HEADER.unpack_from(received, at)
        yield kind, flags, received[at + HEADER.size : at + length]
        at += max(HEADER.size, length + 3 & ~3)


def _socket(protocol: str, family: int, content: bytes) -> Socket:
    _, state, _, _, *ends, _, _, _, _, _, user, inode = MESSAGE.unpack_from(content)
    local_port, remote_port = (int.from_bytes(each) for each in ends[:2])
    local, remote = (_address(family, each) for each in ends[2:])
    attributes = dict(_attributes(content[MESSAGE.size :]))
    return Socket(
        protocol, local, local_port, remote, remote_port, _families(family, local, remote, attributes),
        _state(protocol, state), user, inode,
        int.from_bytes(attributes.get(INET_DIAG_MARK, b""), sys.byteorder),
        int.from_bytes(attributes.get(INET_DIAG_CGROUP_ID, b""), sys.byteorder),
    )  # fmt: skip


def _state(protocol: str, number: int) -> str:
    if protocol == "udp":
        return "connected" if STATES[number] == "established" else "open"
    return STATES[number] if number < len(STATES) else str(number)


def _address(family: int, packed: bytes) -> Address | None:
    """None: any. An IPv4 address that an IPv6 socket speaks to is one."""
    address = ip_address(packed[:4] if family == socket.AF_INET else packed)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return None if address.is_unspecified else address


def _families(
    family: int, local: Address | None, remote: Address | None, attributes: dict[int, bytes]
) -> frozenset[int]:
    known = remote or local
    if known:
        return frozenset((known.version,))
    if family == socket.AF_INET:
        return frozenset((4,))
    only = attributes.get(INET_DIAG_SKV6ONLY, b"\0")[0]
    return frozenset((6,)) if only else frozenset((4, 6))


def _attributes(text: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(text):
        length, kind = struct.unpack_from("=HH", text, at)
        yield kind, text[at + 4 : at + length]
        at += max(4, length + 3 & ~3)
