"""Does a policy select a socket, and if not, which key is the first that does not hold? Pure functions.

A key holds, does not hold, or depends on the packet: a socket that is not connected speaks to any address.
Owner keys are asked as the rules ask them (rules/iptables_match.py): with a program among them, by the tag
that the socket has in its mark; else by the user, group and cgroup that made the socket.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal

from layer45.rules.cgroups import within
from layer45.rules.diversion import Diversion, PortRange, Selector
from layer45.rules.owners import OwnerTags

Address = IPv4Address | IPv6Address
Holds = Literal["yes", "no", "packet"]  # packet: of each packet anew
SOME_PACKETS = "each packet's own"
UNSEEN = "unknown: the socket was made before the tagger, was detached, or its program set its mark"
OUTDATED = "unknown: the socket was tagged for other policies"
EARLIER = ", but not when the socket was made; layer45 attach makes up for it"
OWNER_KEYS = ("user", "group", "cgroup", "program")


@dataclass(frozen=True)
class SocketContext:
    """All that a match asks of a socket. local, remote None, a port 0: not decided, or any.

    families: the IP versions it speaks. user, group, cgroup: of who made it; None: not known. tag: the number
    in its mark. name, path: the program that has it now. programs: of those that policies name, which it is.
    """

    protocol: str
    local: Address | None = None
    local_port: int = 0
    remote: Address | None = None
    remote_port: int = 0
    families: frozenset[int] = frozenset((4, 6))
    user: int | None = None
    group: int | None = None
    cgroup: str | None = None
    tag: int = 0
    name: str = ""
    path: str = ""
    programs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Answer:
    """key: the first that does not hold, or that the packet decides, with its value and what was expected."""

    holds: Holds = "yes"
    key: str = ""
    value: str = ""
    expected: str = ""


YES = Answer()


def explain(
    select: Selector | None, unless: Selector | None, socket: SocketContext, tags: OwnerTags
) -> Answer:
    """Whether a policy with this match selects the socket."""
    if select is None:
        return Answer("no", "match", "no match", "a policy that selects new sockets")
    answer = _all_of(_answers(select, socket, _owned(select, socket, tags)))
    if answer.holds == "no" or unless is None:
        return answer
    excepted = _all_of(_answers(unless, socket, _excepted(unless, socket, tags)))
    if excepted.holds == "yes":
        return Answer("no", "unless", _told(unless, socket), "anything else")
    if excepted.holds == "packet" and answer.holds == "yes":
        return Answer("packet", f"unless.{excepted.key}", excepted.value, excepted.expected)
    return answer


def candidates(
    diversions: Sequence[Diversion], socket: SocketContext, tags: OwnerTags
) -> list[tuple[str, Holds]]:
    """The policies that packets of the socket get, highest priority first; behind a yes comes none."""
    found: dict[str, Holds] = {}
    for each in diversions:
        holds = explain(each.select, each.unless, socket, tags).holds
        if holds != "no":
            found.setdefault(each.policy, holds)
        if holds == "yes":
            found[each.policy] = holds
            break
    return list(found.items())


def told(answer: Mapping[str, str]) -> str:
    """An answer as a line."""
    policy = f"{answer['policy']}: "
    if answer["holds"] == "yes":
        return policy + ("started by layer45 exec" if answer["by"] == "exec" else "every key holds")
    if answer["by"] == "exec" and answer["key"] == "cgroup":
        return policy + "only programs that layer45 exec starts have it"
    return policy + f"{answer['key']} is {answer['value'] or '/'}, expected {answer['expected']}"


def owner_answer(select: Selector, socket: SocketContext) -> Answer:
    """Of the owner keys alone, by what the socket's owner is now: the first that does not hold."""
    return next((each for each in _by_facts(select, socket) if each.holds != "yes"), YES)


def _all_of(answers: Iterable[Answer]) -> Answer:
    found = [each for each in answers if each.holds != "yes"]
    return next((each for each in found if each.holds == "no"), found[0] if found else YES)


def _answers(selector: Selector, socket: SocketContext, owner: Iterable[Answer]) -> list[Answer]:
    """Key by key, in the order in which Selector has them."""
    return [
        _key("protocol", selector.protocol, socket.protocol, lambda one: one == socket.protocol),
        _address("local", selector.local, socket.local, socket.families),
        _address("remote", selector.remote, socket.remote, socket.families),
        _port("local_port", selector.local_port, socket.local_port),
        _port("remote_port", selector.remote_port, socket.remote_port),
        *owner,
    ]


def _address(
    key: str, networks: tuple[Any, ...], address: Address | None, families: frozenset[int]
) -> Answer:
    if networks and address is None:
        possible = any(network.version in families for network in networks)
        return Answer("packet" if possible else "no", key, SOME_PACKETS, _listed(networks))
    return _key(key, networks, address, lambda network: address in network)


def _port(key: str, ranges: tuple[PortRange, ...], port: int) -> Answer:
    expected = _listed(f"{first}-{last}" if first != last else first for first, last in ranges)
    if ranges and not port:
        return Answer("packet", key, SOME_PACKETS, expected)
    holds = not ranges or any(first <= port <= last for first, last in ranges)
    return YES if holds else Answer("no", key, str(port), expected)


def _key(key: str, values: tuple[Any, ...], value: object, holds: Callable[[Any], bool]) -> Answer:
    if not values or any(map(holds, values)):
        return YES
    return Answer("no", key, "unknown" if value is None else str(value), _listed(values))


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _by_facts(selector: Selector, socket: SocketContext) -> list[Answer]:
    cgroup = socket.cgroup
    return [
        _key("user", selector.user, socket.user, lambda one: one == socket.user),
        _key("group", selector.group, socket.group, lambda one: one == socket.group),
        _key("cgroup", selector.cgroup, cgroup, lambda one: cgroup is not None and within(cgroup, one)),
        _key("program", selector.program, _program(socket), lambda one: one in socket.programs),
    ]


def _program(socket: SocketContext) -> str:
    return f"{socket.name} ({socket.path})" if socket.path else socket.name or "none"


def _owned(selector: Selector, socket: SocketContext, tags: OwnerTags) -> list[Answer]:
    if not selector.program:
        return _by_facts(selector, socket)
    if socket.tag in tags.having(selector):
        return []
    return [_by_tag(selector, socket, tags)]


def _by_tag(selector: Selector, socket: SocketContext, tags: OwnerTags) -> Answer:
    """Why a socket does not have a tag that says that the owner keys hold."""
    expected, now = _listed(selector.program), owner_answer(selector, socket)
    if socket.tag == tags.of_nothing == 0 and now.holds == "no":
        return now
    if socket.tag not in tags.sets:
        return Answer("no", "program", OUTDATED if socket.tag else UNSEEN, expected)
    return now if now.holds == "no" else Answer("no", "program", _program(socket) + EARLIER, expected)


def _excepted(selector: Selector, socket: SocketContext, tags: OwnerTags) -> list[Answer]:
    """What is not known is left alone: only a tag that says that the keys do not hold helps."""
    if not selector.program:
        return _by_facts(selector, socket)
    certain = socket.tag in tags.lacking(selector)
    return [Answer("no", "program", _program(socket), _listed(selector.program))] if certain else []


def _told(unless: Selector, socket: SocketContext) -> str:
    """What of a socket the keys of an unless are about."""
    values = {
        **{key: getattr(socket, key) for key in ("protocol", "local", "remote", "user", "group", "cgroup")},
        "local_port": socket.local_port,
        "remote_port": socket.remote_port,
        "program": _program(socket) if socket.tag else UNSEEN,
    }
    return ", ".join(f"{key} {value}" for key, value in values.items() if getattr(unless, key))
