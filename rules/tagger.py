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
import struct
from collections.abc import Iterable, Iterator

from layer45.rules import bpf, cgroups, executables, kernel_types, socket_tags
from layer45.rules.diversion import RulePlan
from layer45.rules.errors import RulesError
from layer45.rules.owners import Dimension, OwnerTags, owner_tags
from layer45.rules.process_sockets import own_cookie
from layer45.rules.tagger_program import (
    DIMENSIONS,
    KEY_BYTES,
    TAGS_KEY_BYTES,
    Maps,
    Offsets,
    name_key,
    path_key,
    program,
)


class Tagger:
    """Owns the attached program of one daemon. Not for several threads at once."""

    def __init__(self) -> None:
        self._link = -1
        self._plan: RulePlan | None = None
        self._versions: dict[str, tuple[int, int] | None] = {}  # of the executables, by path

    def apply(self, plan: RulePlan) -> str:
        """Tag new sockets of this network namespace as the plan's rules expect; replaces in one step.

        Returns why some owners get no tag, or nothing. A plan without owner keys needs no program. Raises
        RulesError with the reason where BPF cannot do it: the rules then still work, but no socket is matched
        by program, and servers' first packets are not matched by owner.
        """
        tags = owner_tags(plan)
        self._versions = _versions(path for keys in tags.keys for path in keys.paths)
        if not tags.sets:
            self.close()
            return tags.problem
        offsets, problem = _offsets(tags)
        with contextlib.ExitStack() as maps:
            loaded = _load(tags, plan, offsets, maps)
            self._attach(loaded)
        self._plan = plan
        problems = (tags.problem, problem, _same_file(self._versions), _scripts(self._versions))
        return "; ".join(filter(None, problems))

    @property
    def missing(self) -> list[str]:
        """Executables that the plan asks for, but the host does not have."""
        return [path for path, version in self._versions.items() if version is None]

    def refresh(self) -> bool:
        """Looks again for the executables; whether one has come, gone, or is another file and is applied."""
        if self._plan is None or self._versions == _versions(self._versions):
            return False
        self.apply(self._plan)
        return True

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
        self._plan = None
        if self._link >= 0:
            os.close(self._link)
            self._link = -1


def _versions(paths: Iterable[str]) -> dict[str, tuple[int, int] | None]:
    return {path: executables.version(path) for path in paths}


def _same_file(versions: dict[str, tuple[int, int] | None]) -> str:
    """What is wrong where policies have two names for one executable: only the last is told. Else empty."""
    found: dict[tuple[int, int], str] = {}
    for path, version in versions.items():
        if version and found.setdefault(version, path) != path:
            return f"{found[version]} and {path} are one executable; expected the same path in all policies"
    return ""


def _scripts(versions: dict[str, tuple[int, int] | None]) -> str:
    """What is wrong where a policy asks for the executable of a script. Else empty."""
    found = ", ".join(path for path, version in versions.items() if version and executables.is_script(path))
    return f"{found} is a script, and the kernel runs its interpreter; expected its name" if found else ""


def _load(tags: OwnerTags, plan: RulePlan, offsets: Offsets | None, holding: contextlib.ExitStack) -> int:
    """The program's descriptor; it and those of its maps are closed with the stack."""
    with _told("load"):
        maps = _maps(tags, plan, holding)
        code = program(maps, plan.marks, own_cookie(), offsets)
        loaded = bpf.load_program(bpf.PROG_TYPE_CGROUP_SOCK, code, "layer45_tagger", bpf.ATTACH_SOCK_CREATE)
        holding.callback(os.close, loaded)
    return loaded


def _maps(tags: OwnerTags, plan: RulePlan, holding: contextlib.ExitStack) -> Maps:
    """Their descriptors are closed with the stack."""

    def made(name: str, key_bytes: int, entries: dict[bytes, int]) -> int:
        descriptor = _filled(key_bytes, entries, f"layer45_{name}")
        holding.callback(os.close, descriptor)
        return descriptor

    named = dict(zip(DIMENSIONS, tags.dimensions, strict=True))
    by_level: dict[int, dict[bytes, int]] = {}
    in_cgroup = named.pop("cgroup").rows
    for path, identity in cgroups.versions(plan).items():
        if identity is not None and path in in_cgroup:
            by_level.setdefault(cgroups.level(path), {})[struct.pack("=Q", identity)] = in_cgroup[path]
    numbers = {struct.pack("=5I", *rows): plan.marks.spread(tag) for rows, tag in tags.numbers.items()}
    asked = {name: _entries(name, each) for name, each in named.items() if each.rows}
    return Maps(
        {name: made(name, KEY_BYTES[name], entries) for name, entries in asked.items()},
        {level: made("cgroup", KEY_BYTES["cgroup"], entries) for level, entries in by_level.items()},
        made("tags", TAGS_KEY_BYTES, numbers),
    )


def _entries(name: str, dimension: Dimension) -> dict[bytes, int]:
    """What the map of a dimension has in it: key → row."""
    if name == "path":
        return {path_key(each.inode, each.device): row for each, row in socket_tags.files(dimension).items()}
    make = name_key if name == "name" else struct.Struct("=I").pack
    return {make(value): row for value, row in dimension.rows.items()}


def _filled(key_bytes: int, entries: dict[bytes, int], name: str) -> int:
    """A map with these entries; its descriptor."""
    made = bpf.create_hash(key_bytes, 4, max(1, len(entries)), name)
    for key, value in entries.items():
        bpf.update(made, key, struct.pack("=I", value))
    return made


def _offsets(tags: OwnerTags) -> tuple[Offsets | None, str]:
    """Where the kernel keeps programs, if any is asked for; and what cannot be done without."""
    if not any(keys.program for keys in tags.keys):
        return None, ""
    try:
        return kernel_types.offsets(), ""
    except RulesError as error:
        return None, f"programs are told by their threads' names alone: {error}"


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RulesError(f"sockets are not tagged: cannot {what} the BPF program: {reason}") from None
