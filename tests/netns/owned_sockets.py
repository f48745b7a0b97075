"""Sockets made under another user, group or cgroup and handed to the test; cgroups that go away again."""

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from layer45.rules import cgroups

from .topology import Host

ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


@dataclass(frozen=True)
class Owner:
    """Who makes a socket."""

    user: int = 0
    group: int = 0
    cgroup: str = ""
    program: str = ""  # its name


def owned_socket(
    host: Host, family: int, kind: int, owner: Owner | None = None, port: int = 0
) -> socket.socket:
    """A socket of the host that this owner made, bound to any address and the port; 2 s timeout."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        _make(theirs, host, family, kind, owner or Owner())
    with ours, theirs:
        os.waitpid(child, 0)
        theirs.close()
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    assert descriptors, f"no socket could be made as {owner}"
    made = socket.socket(fileno=descriptors[0])
    made.settimeout(2)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((ANY[family], port))
    return made


def _make(theirs: socket.socket, host: Host, family: int, kind: int, owner: Owner) -> None:
    """In the child; never returns."""
    try:
        if owner.cgroup:
            (cgroups.mount_point() / owner.cgroup / "cgroup.procs").write_text(str(os.getpid()))
        if owner.program:
            Path("/proc/self/comm").write_text(owner.program)
        with host.entered():
            os.setgroups([])
            os.setresgid(owner.group, owner.group, owner.group)
            os.setresuid(owner.user, owner.user, owner.user)
            made = socket.socket(family, kind)
            socket.send_fds(theirs, [b"x"], [made.fileno()])
            os._exit(0)
    finally:
        os._exit(1)


@contextlib.contextmanager
def new_cgroups(*names: str) -> Iterator[list[str]]:
    """Fresh cgroups, in order, so that a name may lie below one before it; their paths below the mount."""
    root = f"l45-test-{uuid.uuid4().hex[:8]}"
    paths = [root, *(f"{root}/{name}" for name in names)]
    try:
        for path in paths:
            (cgroups.mount_point() / path).mkdir()
        yield paths[1:]
    finally:
        for path in reversed(paths):
            with contextlib.suppress(FileNotFoundError):
                (cgroups.mount_point() / path).rmdir()
