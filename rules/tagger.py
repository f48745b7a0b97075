"""Tags sockets as they are made, so that a server's first packet finds its policy.

A BPF program at `cgroup/sock_create`, on the root of the cgroup v2 tree, runs inside the application's own
socket() call. In the daemon's network namespace it works out which owner keys hold (owners.py) and puts
the number of that set into our field of the socket's mark; other bits stay. It is attached by a BPF link
that only this process holds: when the process ends, however it ends, the program is gone.

The program is assembled from the plan (tagger_program.py); nothing is compiled and no library is needed.
User and group are the real ones of the caller; the rules for egress ask for those the socket
carries, and correct what a set-uid program got wrong with its first reply.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

from layer45.rules import bpf, cgroups
from layer45.rules.diversion import RulePlan
from layer45.rules.errors import RulesError
from layer45.rules.owners import owner_tags
from layer45.rules.tagger_program import program

SO_NETNS_COOKIE = 71


class Tagger:
    """Owns the attached program of one daemon. Not for several threads at once."""

    def __init__(self) -> None:
        self._link = -1

    def apply(self, plan: RulePlan) -> str:
        """Tag new sockets of this network namespace as the plan's rules expect; replaces in one step.

        Returns why some owners get no tag, or nothing. A plan without owner keys needs no program. Raises
        RulesError with the reason where BPF cannot do it: the rules then still work, but servers' first
        packets are not matched by owner.
        """
        tags = owner_tags(plan)
        if not tags.sets:
            self.close()
            return tags.problem
        loaded = _load(program(tags, plan.marks, _netns_cookie()))
        try:
            self._attach(loaded)
        finally:
            os.close(loaded)
        return tags.problem

    def _attach(self, loaded: int) -> None:
        if self._link >= 0:
            with _told("replace"):
                bpf.call(bpf.LINK_UPDATE, struct.pack("=IIII", self._link, loaded, 0, 0), "replace")
            return
        root = os.open(cgroups.mount_point(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        request = struct.pack("=IIII", loaded, root, bpf.ATTACH_SOCK_CREATE, 0)
        try:
            with _told("attach"):
                self._link = bpf.call(bpf.LINK_CREATE, request, "attach")
        finally:
            os.close(root)

    def close(self) -> None:
        """Detach; sockets keep the tags they have."""
        if self._link >= 0:
            os.close(self._link)
            self._link = -1


def _netns_cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return int(struct.unpack("=Q", probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0])


def _load(code: bytes) -> int:
    with _told("load"):
        return bpf.load_program(bpf.PROG_TYPE_CGROUP_SOCK, code, "layer45_tagger", bpf.ATTACH_SOCK_CREATE)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RulesError(f"sockets are not tagged: cannot {what} the BPF program: {reason}") from None
