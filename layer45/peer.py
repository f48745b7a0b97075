"""Who is at the other end of a unix socket, as the kernel knows it, and what they may do."""

import ctypes
import grp
import socket
import struct
from dataclasses import dataclass

CONTROL_GROUP = "layer45"
SO_PEERGROUPS = 59  # Linux 4.13; the socket module does not name it
MOST_GROUPS = 65536  # NGROUPS_MAX

_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Peer:
    """Credentials a peer had when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]  # primary and supplementary

    @property
    def permitted(self) -> bool:
        """Root, or a member of the control group."""
        return self.uid == 0 or control_gid() in self.groups


def control_gid() -> int | None:
    """The group that may command the daemon; None where the host has no such group."""
    try:
        return grp.getgrnam(CONTROL_GROUP).gr_gid
    except KeyError:
        return None


def peer_of(connection: socket.socket) -> Peer:
    """The peer's credentials. Raises OSError where the socket has none."""
    size = struct.calcsize("iII")
    pid, uid, gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return Peer(pid, uid, frozenset([gid, *_supplementary(connection)]))


def _supplementary(connection: socket.socket) -> list[int]:
    """Through libc, for the socket module reads at most 1 kB of an option: 256 groups."""
    gids = (ctypes.c_uint32 * MOST_GROUPS)()
    size = ctypes.c_uint32(ctypes.sizeof(gids))
    option = (connection.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS)
    if _libc.getsockopt(*option, gids, ctypes.byref(size)) != 0:
        return []
    return list(gids[: size.value // ctypes.sizeof(ctypes.c_uint32)])
