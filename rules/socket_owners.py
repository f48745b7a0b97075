"""Who has the sockets that the kernel lists: for each the process, the group that made it, and its cgroup."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from layer45.rules import cgroups, processes
from layer45.rules.capabilities import LOOKING, raised
from layer45.rules.errors import RulesError
from layer45.rules.processes import Owner
from layer45.rules.socket_list import Socket


@dataclass(frozen=True)
class Held:
    """pids: of all that have it, lowest first; empty where no process has. owner: the first of them.

    group: whose it was made by; None: not known. cgroup: where it was made; None: gone since.
    """

    socket: Socket
    pids: tuple[int, ...] = ()
    owner: Owner | None = None
    group: int | None = None
    cgroup: str | None = None


@raised(*LOOKING)
def held(sockets: Collection[Socket]) -> list[Held]:
    """In the order of the sockets. What ends meanwhile has nothing. Raises RulesError."""
    holders = _holders({each.inode for each in sockets})
    paths = cgroups.by_identity()
    owners: dict[int, Owner | None] = {}
    found = []
    for each in sockets:
        descriptors = holders.get(each.inode, [])
        pids = tuple(dict.fromkeys(pid for pid, _ in descriptors))
        owner = next(filter(None, (_owner(pid, owners) for pid in pids)), None)
        found.append(Held(each, pids, owner, _group(descriptors), paths.get(each.cgroup)))
    return found


def _holders(inodes: set[int]) -> dict[int, list[tuple[int, int]]]:
    """inode → processes and their descriptors of it."""
    found: dict[int, list[tuple[int, int]]] = {}
    for pid in processes.pids():
        for descriptor, inode in processes.sockets(pid):
            if inode in inodes:
                found.setdefault(inode, []).append((pid, descriptor))
    return found


def _owner(pid: int, known: dict[int, Owner | None]) -> Owner | None:
    if pid not in known:
        try:
            known[pid] = processes.owner(pid)
        except RulesError:  # it has ended
            known[pid] = None
    return known[pid]


def _group(descriptors: Iterable[tuple[int, int]]) -> int | None:
    """Of the socket itself, as the rules' owner match asks it."""
    for pid, descriptor in descriptors:
        try:
            return (processes.PROC / str(pid) / "fd" / str(descriptor)).stat().st_gid
        except OSError:
            continue
    return None
