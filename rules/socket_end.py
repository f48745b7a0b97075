"""Closes TCP sockets of this network namespace by their addresses, as `ss --kill` does: NETLINK_SOCK_DIAG.

A socket is asked for first and closed by its cookie then: asked for a connection that is gone, the kernel
finds the listening socket of its port, which must stay. Closing sends a reset where the connection is
established; orphans and connections in TIME_WAIT are found too.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 4, 20, 21
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 1, 4, 2
ANY_STATE, ANY_COOKIE = 0xFFFFFFFF, b"\xff" * 8
ESTABLISHED_SIDE = ">4x2s2s16s16s4x8s"  # of struct inet_diag_msg: ports, addresses, cookie
GONE = (errno.ENOENT, errno.ESTALE)
TIMEOUT_S = 5


@dataclass(frozen=True)
class Ended:
    """closed: how many connections there were. problem: why some could not be closed, or empty."""

    closed: int = 0
    problem: str = ""

    def __add__(self, other: "Ended") -> "Ended":
        return Ended(self.closed + other.closed, self.problem or other.problem)


def end_sockets(keys: Iterable[bytes]) -> Ended:
    """Closes the connections of these keys (see known_program.py), all that can be."""
    total = Ended()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
        diag.settimeout(TIMEOUT_S)
        for key in keys:
            try:
                total += Ended(int(_end(diag, key)))
            except OSError as error:  # a kernel without CONFIG_INET_DIAG_DESTROY
                total += Ended(problem=f"a customized connection cannot be closed: {error.strerror or error}")
    return total


def problem() -> str:
    """Why sockets cannot be closed here, or empty. Closes none."""
    nobody = bytes(36)  # :: to ::, port 0
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diag:
            diag.settimeout(TIMEOUT_S)
            _ask(diag, SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, _request(nobody, 0, bytes(8)))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _end(diag: socket.socket, key: bytes) -> bool:
    return any(_end_at(diag, key, interface) for interface in _interfaces(key))


def _interfaces(key: bytes) -> list[int]:
    """A connection between link-local addresses is one of an interface."""
    link_local = IPv6Address(key[:16]).is_link_local and IPv6Address(key[:16]).ipv4_mapped is None
    return [number for number, _ in socket.if_nameindex()] if link_local else [0]


def _end_at(diag: socket.socket, key: bytes, interface: int) -> bool:
    found = _ask(diag, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, _request(key, interface, ANY_COOKIE))
    if found is None:
        return False
    local_port, remote_port, _, _, cookie = struct.unpack_from(ESTABLISHED_SIDE, found)
    if (local_port + remote_port) != key[32:36]:
        return False
    _ask(diag, SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, _request(key, interface, cookie))
    return True


def _request(key: bytes, interface: int, cookie: bytes) -> bytes:
    """struct inet_diag_req_v2."""
    mapped = IPv6Address(key[:16]).ipv4_mapped is not None
    family = socket.AF_INET if mapped else socket.AF_INET6
    local, remote = (
        key[at : at + 16][12:].ljust(16, b"\0") if mapped else key[at : at + 16] for at in (0, 16)
    )
    head = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, ANY_STATE)
    return head + key[32:36] + local + remote + struct.pack("=I", interface) + cookie


def _ask(diag: socket.socket, kind: int, flags: int, request: bytes) -> bytes | None:
    """The answer's content; None: there is no such socket. Raises OSError."""
    diag.send(struct.pack("=IHHII", 16 + len(request), kind, flags, 1, 0) + request)
    answer = diag.recv(8192)
    _, answered, _, _, _ = struct.unpack_from("=IHHII", answer)
    if answered != NLMSG_ERROR:
        return answer[16:]
    (negative,) = struct.unpack_from("=i", answer, 16)
    if negative and -negative not in GONE:
        raise OSError(-negative, os.strerror(-negative))
    return None
