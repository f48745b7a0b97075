"""attach and detach: sockets that are open already get the tag that they would get if made now.

Only the tag: which policy's packets they are, the rules decide with it, as with any socket. A TCP connection
keeps what its SYN decided.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from layer45.errors import Layer45Error
from layer45.explain import Answer, SocketContext, owner_answer
from layer45.rules import socket_tags
from layer45.rules.diversion import Diversion, RulePlan, Selector
from layer45.rules.errors import RulesError
from layer45.rules.owners import OwnerTags, owner_tags
from layer45.rules.process_sockets import Borrowed, Process, tag_sockets
from layer45.rules.processes import Owner


@dataclass(frozen=True)
class Done:
    """sockets: how many have the tag now. connections: those of TCP among them, which stay as they are.

    elsewhere: sockets in other network namespaces, which were left alone. also: other policies that detach
    took from them, for they ask for the same owner. note: why there was nothing to do.
    """

    policy: str
    pid: int
    program: str = ""
    sockets: int = 0
    connections: int = 0
    elsewhere: int = 0
    also: tuple[str, ...] = ()
    note: str = ""

    def told(self) -> dict[str, Any]:
        """For the control socket."""
        return asdict(self)


def attach(plan: RulePlan, policy: str, pid: int) -> Done:
    """Tags the sockets of a process, which the (active) policy must select then. Raises Layer45Error."""
    with _process(pid) as process:
        owner, tags = process.owner(), owner_tags(plan)
        concerned = [each for each in plan.diversions if each.policy == policy]
        if concerned and not any(map(asks_owner, concerned[-1:])):
            note = f'policy "{policy}" asks for no owner, so it has open sockets already: nothing to do'
            return Done(policy, pid, owner.name, note=note)
        _require_selected(policy, concerned, owner)
        tag = socket_tags.tag_of(tags, owner)
        if not tag:
            raise Layer45Error(f"process {pid} can have no tag: {tags.problem}")
        return _tagged(process, owner, plan, policy, tag)


def detach(plan: RulePlan, policy: str, pid: int) -> Done:
    """Takes the policy's owner keys out of the tags of a process's sockets. Raises Layer45Error."""
    with _process(pid) as process:
        owner, tags = process.owner(), owner_tags(plan)
        concerned = [each for each in plan.diversions if each.policy == policy]
        _require_by_program(policy, concerned, owner)
        selectors = [each.select for each in concerned if each.select and each.select.owned]
        before = socket_tags.tag_of(tags, owner)
        tag = socket_tags.without(tags, before, selectors)
        lost = _having(plan, tags, before) - _having(plan, tags, tag) - {policy}
        return replace(_tagged(process, owner, plan, policy, tag), also=tuple(sorted(lost)))


def _having(plan: RulePlan, tags: OwnerTags, tag: int) -> set[str]:
    """The policies that have a socket with this tag, as far as owners go."""
    return {each.policy for each in plan.diversions if each.select and tag in tags.having(each.select)}


@contextlib.contextmanager
def _process(pid: int) -> Iterator[Process]:
    try:
        with contextlib.closing(Process(pid)) as process:
            yield process
    except RulesError as error:
        raise Layer45Error(str(error)) from None


def _tagged(process: Process, owner: Owner, plan: RulePlan, policy: str, tag: int) -> Done:
    with process.sockets() as found:
        if found.elsewhere and not found.here:
            raise Layer45Error(_elsewhere(owner, found))
        tag_sockets(found.here, plan.marks, tag)
        counts = len(found.here), found.connections, found.elsewhere
        return Done(policy, owner.pid, owner.name, *counts)


def _elsewhere(owner: Owner, found: Borrowed) -> str:
    many = (
        "its socket is in another" if found.elsewhere == 1 else f"its {found.elsewhere} sockets are in other"
    )
    return (
        f"process {owner.pid} ({owner.name}): {many} network namespace{'' if found.elsewhere == 1 else 's'}, "
        "which this daemon's rules do not see; run a daemon there"
    )


def asks_owner(diversion: Diversion) -> bool:
    """Whether a socket's tag can matter to it."""
    return any(each.owned for each in (diversion.select, diversion.unless) if each)


def _require_selected(policy: str, diversions: Sequence[Diversion], owner: Owner) -> None:
    """diversions: the policy's, that for `layer45 exec` first. Raises Layer45Error, with a key."""
    if not diversions:
        raise Layer45Error(f'policy "{policy}" has no match: only programs that layer45 exec starts have it')
    answers = [selects(each, owner) for each in diversions]
    if any(answer.holds == "yes" for answer in answers):
        return
    wrong = answers[-1]
    raise Layer45Error(
        f'policy "{policy}" does not select process {owner.pid} ({owner.name}): {wrong.key} is '
        f"{wrong.value or '/'}, expected {wrong.expected}"
    )


def selects(diversion: Diversion, owner: Owner) -> Answer:
    """Whether owner keys let a policy have sockets of a process; addresses and ports are not asked."""
    if diversion.select is None:
        return Answer("no", "state", "deprecated", "active")
    answer = owner_answer(diversion.select, _context(diversion.select, owner))
    unless = diversion.unless
    if answer.holds == "yes" and unless and only_owner(unless):
        excepted = owner_answer(unless, _context(unless, owner))
        if excepted.holds == "yes":
            return Answer("no", "unless", "met by it", "not to be")
    return answer


def only_owner(selector: Selector) -> bool:
    """Whether no address or port is asked."""
    return not any(
        getattr(selector, key) for key in ("protocol", "local", "remote", "local_port", "remote_port")
    )


def _context(selector: Selector, owner: Owner) -> SocketContext:
    return SocketContext(
        "", user=owner.user, group=owner.group, cgroup=owner.cgroup, name=owner.name, path=owner.path,
        programs=socket_tags.Programs(selector.program).of(owner),
    )  # fmt: skip


def _require_by_program(policy: str, diversions: Sequence[Diversion], owner: Owner) -> None:
    """A tag decides only where a program is asked for. Raises Layer45Error."""
    for each in diversions:
        if each.select and not each.select.program and selects(each, owner).holds == "yes":
            keys = ", ".join(key for key in ("user", "group", "cgroup") if getattr(each.select, key))
            by = f"by {keys}" if keys else "whoever they belong to"
            raise Layer45Error(
                f'policy "{policy}" has the sockets of process {owner.pid} ({owner.name}) {by}, '
                "not by program: that cannot be taken from open ones"
            )
