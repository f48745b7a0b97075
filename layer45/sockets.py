"""`layer45 sockets` and `explain`: the kernel's sockets, their owners, the policies' answers and the engine's
flows, joined.

A TCP connection has what its SYN decided: the engine's flow tells its policy, and no rule is asked any more.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from layer45.errors import Layer45Error
from layer45.explain import Answer, SocketContext, candidates, explain, told
from layer45.loader import Plan, exec_cgroup, with_exec
from layer45.rules import processes, socket_list, socket_owners
from layer45.rules.diversion import Diversion
from layer45.rules.errors import RulesError
from layer45.rules.owners import OwnerTags, owner_tags
from layer45.rules.socket_owners import Held
from layer45.rules.socket_tags import Programs, files, tag_of
from layer45.socket_flows import End, Flow, Traffic, read_address, traffic, written

KEPT = "a TCP connection keeps what its SYN decided, and the engine knows none of this one"
ALL = "layer45 sockets --all has them all"
NOTHING = Traffic()


class SocketView:
    """The sockets of one moment, under one plan. Raises Layer45Error where the kernel does not tell them."""

    def __init__(self, plan: Plan, flows: Sequence[Flow]) -> None:
        self._plan = plan
        self._tags = owner_tags(plan.rules)
        self._programs = Programs({program for keys in self._tags.keys for program in keys.program})
        self._files = files(self._tags.dimensions[-1]) if self._tags.dimensions else {}
        self._diversions = self._newest(plan)
        self._exec = {name: exec_cgroup(plan.settings, name) for name in plan.classes}
        try:
            found = socket_list.sockets()
            self._held = socket_owners.held(found)
        except RulesError as error:
            raise Layer45Error(str(error)) from None
        self._traffic = traffic(found, flows)

    @staticmethod
    def _newest(plan: Plan) -> list[Diversion]:
        """Without those of old versions, which no new flow gets."""
        return [each for each in plan.rules.diversions if each.policy in plan.policies]

    def listing(self, everything: bool) -> list[dict[str, Any]]:
        """Sockets that some policy has, for some of their packets at least; everything: the others, too."""
        rows = (self._described(each, self._context(each)) for each in self._held)
        wanted = (row for row in rows if everything or row["policies"])
        return sorted(
            wanted, key=lambda row: (row["program"], row["pid"] or 0, row["protocol"], row["local"])
        )

    def of_process(self, pid: int) -> list[dict[str, Any]]:
        """Its sockets, explained. Raises Layer45Error where it has none."""
        found = [each for each in self._held if pid in each.pids]
        if not found:
            raise Layer45Error(_no_socket(pid))
        return [self._explained(each) for each in found]

    def of_address(self, text: str) -> list[dict[str, Any]]:
        """PROTOCOL/LOCAL or PROTOCOL/LOCAL/REMOTE, as listing writes them. Raises Layer45Error."""
        try:
            protocol, ends = read_address(text)
        except ValueError as error:
            raise Layer45Error(f"{text}: {error}") from None
        found = [each for each in self._held if _is_at(each, protocol, ends)]
        if not found:
            raise Layer45Error(f"no socket {text} in this network namespace; {ALL}")
        return [self._explained(each) for each in found]

    def _context(self, held: Held) -> SocketContext:
        socket, owner = held.socket, held.owner
        return SocketContext(
            socket.protocol, socket.local, socket.local_port, socket.remote, socket.remote_port,
            families=socket.families, user=socket.user, group=held.group, cgroup=held.cgroup,
            tag=self._plan.rules.marks.gathered(socket.mark),
            name=owner.name if owner else "", path=owner.path if owner else "",
            programs=self._programs.of(owner) if owner else frozenset(),
        )  # fmt: skip

    def _described(self, held: Held, context: SocketContext) -> dict[str, Any]:
        socket, owner = held.socket, held.owner
        seen = self._traffic.get(socket.inode, NOTHING)
        return {
            "program": context.name,
            "pid": owner.pid if owner else None,
            "pids": list(held.pids),
            "user": socket.user,
            "group": held.group,
            "cgroup": held.cgroup,
            "protocol": socket.protocol,
            "local": written(socket.local, socket.local_port),
            "remote": written(socket.remote, socket.remote_port),
            "state": socket.state,
            "policies": self._policies(held, context, seen),
            "tag": tag_state(context.tag, self._expected(held), self._tags, self._diversions),
            "why": self._why(held, context, seen),
            **{key: value for key, value in asdict(seen).items() if key not in ("policy", "state")},
        }

    def _expected(self, held: Held) -> int:
        """The tag that a socket of this owner would get now."""
        return tag_of(self._tags, held.owner, self._files) if held.owner else 0

    def _policies(self, held: Held, context: SocketContext, seen: Traffic) -> list[dict[str, str]]:
        if is_connection(held):
            return [{"policy": seen.policy, "holds": "yes"}] if seen.policy else []
        found = candidates(self._diversions, context, self._tags)
        return [{"policy": policy, "holds": holds} for policy, holds in found]

    def _why(self, held: Held, context: SocketContext, seen: Traffic) -> str:
        """One line: of a connection, what became of it; else the answer of who has it, or of the first."""
        if is_connection(held):
            return f"its SYN was selected; {seen.state or 'customized'}" if seen.policy else KEPT
        answers = self._answers(context)
        if not answers:
            return "there is no active policy"
        for answer in answers:
            if answer["holds"] != "no":
                return told(answer)
        first = next((each for each in answers if each["by"] == "match"), answers[0])
        others = len(answers) - 1
        return told(first) + (f" (and {others} other{'' if others == 1 else 's'})" if others else "")

    def _explained(self, held: Held) -> dict[str, Any]:
        context = self._context(held)
        row = self._described(held, context)
        return {
            **row,
            "path": context.path,
            "connection": is_connection(held),
            "answers": self._answers(context),
        }

    def _answers(self, context: SocketContext) -> list[dict[str, str]]:
        """One for each policy, in the order in which the rules ask them: `layer45 exec` comes first.

        Where both ways to a policy fail, the answer is that of its match. Of policies without, all are told
        here, whether a program was ever started or not.
        """
        found: dict[tuple[str, str], Answer] = {}
        for each in self._newest(with_exec(self._plan, self._plan.policies)):
            way = "exec" if each.select and each.select.cgroup == (self._exec.get(each.policy),) else "match"
            found[each.policy, way] = explain(each.select, each.unless, context, self._tags)
        return [
            {"policy": policy, "by": way, **asdict(answer)}
            for (policy, way), answer in found.items()
            if way == "match" or answer.holds != "no" or (policy, "match") not in found
        ]


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["program"], row["pid"] or 0, row["protocol"], row["local"]


def is_connection(held: Held) -> bool:
    """Whether TCP has begun one: then the rules do not ask policies any more."""
    return held.socket.protocol == "tcp" and held.socket.state not in ("listening", "closed")


def tag_state(tag: int, expected: int, tags: OwnerTags, diversions: Sequence[Diversion]) -> dict[str, Any]:
    """What a socket's mark tells of its owner.

    state: "unasked" (no policy asks for owners), "unseen" (made before the tagger), "outdated" (tagged for
    other policies), or "seen"; policies: those whose owner keys held. expected: the tag it would get now; 0,
    and it has none: it may have been seen or not, and that is the same.
    """
    if not tags.sets:
        return {"number": tag, "state": "unasked", "policies": []}
    seen = tag in tags.sets or tag == expected == tags.of_nothing
    state = "seen" if seen else "outdated" if tag else "unseen"
    holding = [d.policy for d in diversions if d.select and d.select.owned and tag in tags.having(d.select)]
    return {"number": tag, "state": state, "policies": list(dict.fromkeys(holding))}


def _is_at(held: Held, protocol: str, ends: list[End]) -> bool:
    socket = held.socket
    own = [(socket.local, socket.local_port), (socket.remote, socket.remote_port)]
    return socket.protocol == protocol and own[: len(ends)] == ends


def _no_socket(pid: int) -> str:
    try:
        name = processes.owner(pid).name
    except RulesError as error:
        return str(error)
    return f"process {pid} ({name}) has no bound TCP or UDP socket in this network namespace; {ALL}"
