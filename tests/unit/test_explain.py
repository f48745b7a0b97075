"""Whether a policy selects a socket, against the definition: each packet that the socket could send."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from layer45.explain import Answer, SocketContext, candidates, explain, told
from layer45.rules.diversion import Diversion, MarkLayout, QueueGroup, RulePlan, Selector
from layer45.rules.owners import owner_keys, owner_tags

MARKS = MarkLayout(0x10FF, 0x2000)
ADDRESSES = [ip_address(each) for each in ("10.0.0.1", "10.0.1.1", "fd00::1", "fd01::1")]
NETWORKS = [ip_network(each) for each in ("10.0.0.0/24", "10.0.0.0/8", "fd00::/16", "0.0.0.0/0", "::/0")]
PORTS = range(1, 5)
NAMES = ["dig", "curl"]
KEYS = ("protocol", "local", "remote", "local_port", "remote_port", "user", "group", "cgroup", "program")
OUTDATED = 499


def some(*values: Any) -> Any:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


ranges = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)).map(sorted).map(tuple), max_size=2).map(
    tuple
)
selectors = st.builds(
    Selector,
    protocol=some("udp", "tcp"), local=some(*NETWORKS), remote=some(*NETWORKS),
    local_port=ranges, remote_port=ranges, user=some(1, 2), group=some(1, 2), cgroup=some("a", "a/b", "c"),
    program=some(*NAMES),
)  # fmt: skip
policies = st.lists(st.tuples(selectors, st.none() | selectors), min_size=1, max_size=4)


@st.composite
def contexts(draw: Any) -> SocketContext:
    """Local and remote address of one family; either may be any."""
    version = draw(st.sampled_from((4, 6)))
    ends = st.none() | st.sampled_from([each for each in ADDRESSES if each.version == version])
    local, remote = draw(ends), draw(ends)
    families = {version} if local or remote or draw(st.booleans()) else {4, 6}
    name = draw(st.sampled_from([*NAMES, "other"]))
    cgroup = draw(st.sampled_from(("a", "a/b", "a/b/c", "ab", "")))
    return SocketContext(
        draw(st.sampled_from(("udp", "tcp"))),
        *(local, draw(st.integers(0, 4)), remote, draw(st.integers(0, 4)), frozenset(families)),
        *(draw(st.integers(1, 3)), draw(st.integers(1, 3)), cgroup),
        name=name,
        programs=frozenset({name} & {*NAMES}),
    )


@dataclass(frozen=True)
class Case:
    """Policies, and a socket whose tag is that of its owner, none, or one of other policies."""

    diversions: tuple[Diversion, ...]
    socket: SocketContext
    seen: bool

    @property
    def tags(self) -> Any:
        return owner_tags(RulePlan("o", MARKS, self.diversions))


@st.composite
def cases(draw: Any) -> Case:
    queues = QueueGroup(0, 1, True)
    diversions = tuple(
        Diversion(f"p{number}", number, *each, queues) for number, each in enumerate(draw(policies), 1)
    )
    socket = draw(contexts())
    tags = owner_tags(RulePlan("o", MARKS, diversions))
    holding = frozenset(i for i, keys in enumerate(tags.keys) if _owner_holds(keys, socket))
    numbers = {places: number for number, places in tags.sets.items()}
    seen = holding in numbers and draw(st.booleans())
    unseen = draw(st.sampled_from([each for each in (0, OUTDATED) if each not in tags.sets]))
    return Case(diversions, replace(socket, tag=numbers[holding] if seen else unseen), seen)


def packets(socket: SocketContext) -> Iterator[SocketContext]:
    """All that it could send or get."""
    for local, remote in product(
        [socket.local] if socket.local else ADDRESSES, [socket.remote] if socket.remote else ADDRESSES
    ):
        assert local and remote
        if local.version == remote.version and local.version in socket.families:
            for ports in product(
                [socket.local_port] if socket.local_port else PORTS,
                [socket.remote_port] if socket.remote_port else PORTS,
            ):
                yield replace(socket, local=local, remote=remote, local_port=ports[0], remote_port=ports[1])


def key_holds(selector: Any, key: str, packet: SocketContext) -> bool:
    values, value = getattr(selector, key), getattr(packet, key, None)
    if not values:
        return True
    if key in ("local", "remote"):
        return any(value in network for network in values)
    if key.endswith("port"):
        return any(first <= value <= last for first, last in values)
    if key == "cgroup":
        return any(f"{value}/".startswith(f"{each}/") for each in values)
    return packet.name in values if key == "program" else value in values


def _owner_holds(keys: Any, packet: SocketContext) -> bool:
    return all(key_holds(keys, key, packet) for key in KEYS[5:])


def selects(selector: Selector, packet: SocketContext, seen: bool, unknown: bool) -> bool:
    """unknown: what is said of an owner that only a tag could tell, and none does."""
    if not all(key_holds(selector, key, packet) for key in KEYS[:5]):
        return False
    return unknown if selector.program and not seen else _owner_holds(selector, packet)


def has(diversion: Diversion, packet: SocketContext, seen: bool) -> bool:
    """The definition of a match."""
    select, unless = diversion.select, diversion.unless
    assert select
    return selects(select, packet, seen, False) and not (unless and selects(unless, packet, seen, True))


@given(cases())
def test_yes_is_every_packet_and_no_is_none(case: Case) -> None:
    for each in case.diversions:
        answer = explain(each.select, each.unless, case.socket, case.tags)
        found = {has(each, packet, case.seen) for packet in packets(case.socket)}
        assert answer.holds == "packet" or found == {answer.holds == "yes"}
        if len(list(packets(case.socket))) == 1 and case.socket.remote and case.socket.local:
            decided = case.socket.local_port and case.socket.remote_port
            assert not decided or answer.holds != "packet"


@given(cases())
def test_the_key_that_is_named_is_the_first_that_does_not_hold(case: Case) -> None:
    for each in case.diversions:
        answer = explain(each.select, None, case.socket, case.tags)
        if answer.holds != "no":
            continue
        by_owner = answer.key in KEYS[5:]
        for key in KEYS[: 5 if by_owner else KEYS.index(answer.key) + 1]:
            held = {key_holds(each.select, key, packet) for packet in packets(case.socket)}
            assert (held == {False}) == (key == answer.key)
        if case.seen and by_owner:
            assert not key_holds(each.select, answer.key, case.socket)
        assert (answer.value and answer.expected) or answer.key == "cgroup"


@given(cases())
def test_packets_get_the_first_policy_that_has_them(case: Case) -> None:
    found = candidates(case.diversions, case.socket, case.tags)
    names = [policy for policy, _ in found]
    assert all(holds == "packet" for _, holds in found[:-1])
    for packet in packets(case.socket):
        first = next((each.policy for each in case.diversions if has(each, packet, case.seen)), None)
        assert first in names if first else all(holds == "packet" for _, holds in found)


@given(cases())
def test_owner_keys_of_a_case_are_those_of_its_tags(case: Case) -> None:
    """The cases are what they should be: a seen socket has the tag of what holds."""
    for each in case.diversions:
        if case.seen and each.select and each.select.owned:
            held = case.socket.tag in case.tags.having(each.select)
            assert held == _owner_holds(owner_keys(each.select), case.socket)


def test_why_there_is_no_program() -> None:
    """Unseen, tagged for other policies, or another program when the socket was made."""
    phone, queues = Selector(program=("phone",)), QueueGroup(0, 1, True)
    others = Diversion("q", 2, Selector(), Selector(program=("dig",)), queues)
    tags = owner_tags(RulePlan("o", MARKS, (Diversion("p", 1, phone, None, queues), others)))
    none = tags.of_nothing
    now = SocketContext("udp", name="phone", path="/usr/bin/phone", programs=frozenset({"phone"}))
    for tag, value in (
        (0, "unknown: the socket was made before the tagger, was detached, or its program set its mark"),
        (OUTDATED, "unknown: the socket was tagged for other policies"),
        (none, "phone (/usr/bin/phone), but not when the socket was made; layer45 attach makes up for it"),
    ):
        answer = explain(phone, None, replace(now, tag=tag), tags)
        assert answer == Answer("no", "program", value, "phone")
    assert explain(phone, None, replace(now, tag=tags.having(phone)[0]), tags).holds == "yes"
    assert explain(None, None, now, tags).key == "match"


def test_who_gets_no_tag_is_told_by_what_it_is() -> None:
    """No policy excepts owners, so that nobody's sockets have none; a program's should have one."""
    phone = Selector(program=("phone",))
    tags = owner_tags(RulePlan("o", MARKS, (Diversion("p", 1, phone, None, QueueGroup(0, 1, True)),)))
    dig = SocketContext("udp", name="dig", path="/usr/bin/dig")
    assert explain(phone, None, dig, tags) == Answer("no", "program", "dig (/usr/bin/dig)", "phone")
    unseen = replace(dig, name="phone", programs=frozenset({"phone"}))
    assert explain(phone, None, unseen, tags).value.startswith("unknown: ")


def test_an_answer_as_a_line() -> None:
    yes = {"policy": "a", "by": "match", "holds": "yes", "key": "", "value": "", "expected": ""}
    no = {**yes, "holds": "no", "key": "cgroup", "value": "", "expected": "x/a"}
    assert told(yes) == "a: every key holds"
    assert told({**yes, "by": "exec"}) == "a: started by layer45 exec"
    assert told(no) == "a: cgroup is /, expected x/a"
    assert told({**no, "by": "exec"}) == "a: only programs that layer45 exec starts have it"
