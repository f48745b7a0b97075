"""Policies with apply_now = true: at the start and at each reload, open sockets of all programs that they
select get their tags.

Every process of the host is looked at, and only sockets of the daemon's network namespace are tagged. Of
processes that share one, the one with the lowest number decides: in most cases it made the socket.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from layer45.attach import asks_owner, only_owner
from layer45.rules import processes, socket_tags
from layer45.rules.diversion import Diversion, RulePlan
from layer45.rules.errors import RulesError
from layer45.rules.owners import owner_tags
from layer45.rules.process_sockets import Process, inode, tag_sockets


@dataclass(frozen=True)
class Applied:
    """processes: how many had a socket that was tagged. problems: why others had none."""

    processes: int = 0
    sockets: int = 0
    problems: tuple[str, ...] = ()


def apply_now(plan: RulePlan, policies: Sequence[str]) -> Applied:
    """A process that ends meanwhile is none; one that cannot be reached is a problem, and no obstacle."""
    wanted = [each for each in plan.diversions if each.policy in policies and asks_owner(each)]
    if not wanted or not owner_tags(plan).sets:
        return Applied()
    work = _Pass(plan, wanted)
    for pid in processes.pids():
        try:
            work.visit(pid)
        except RulesError as error:
            if (processes.PROC / str(pid)).exists():
                work.problems.append(str(error))
    return Applied(work.processes, len(work.done), tuple(work.problems))


class _Pass:
    """One walk over all processes. done: inodes of the sockets that have their tags."""

    def __init__(self, plan: RulePlan, wanted: Sequence[Diversion]) -> None:
        self._plan, self._wanted = plan, wanted
        self._tags = owner_tags(plan)
        self._files = socket_tags.files(self._tags.dimensions[-1])
        self.processes = 0
        self.done: set[int] = set()
        self.problems: list[str] = []

    def visit(self, pid: int) -> None:
        """Raises RulesError."""
        if not any(number not in self.done for _, number in processes.sockets(pid)):
            return
        with contextlib.closing(Process(pid)) as process:
            owner = process.owner()
            tag = socket_tags.tag_of(self._tags, owner, self._files)
            if any(self._selects(each, tag) for each in self._wanted):
                self._tag(process, tag)

    def _selects(self, diversion: Diversion, tag: int) -> bool:
        """As attach.selects, by the tag alone: of a whole host's processes, most are none of anybody's."""
        select, unless = diversion.select, diversion.unless
        if select is None or not tag or (select.owned and tag not in self._tags.having(select)):
            return False
        return not (unless and only_owner(unless) and tag in self._tags.having(unless))

    def _tag(self, process: Process, tag: int) -> None:
        with process.sockets() as found:
            fresh = {inode(each): each for each in found.here if inode(each) not in self.done}
            tag_sockets(list(fresh.values()), self._plan.marks, tag)
            self.processes += bool(fresh)
            self.done |= set(fresh)
