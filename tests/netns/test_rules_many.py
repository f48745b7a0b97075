"""Many policies of all kinds: every datagram has the policy that is first among all that select it.

Policies and sockets are drawn at random; the oracle asks one policy after the other, as a person would.
"""

import contextlib
import random
import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

from layer45.rules import tree
from layer45.rules.diversion import Selector

from .known_map import change, exchange, renumbering
from .owned_sockets import Owner, new_cgroups, owned_socket
from .rule_plans import MARKS, diverting, networks, plan
from .test_rules_matching import UDP, V4, V6, every_family, tagging
from .topology import Hosts

pytestmark = pytest.mark.root

USERS, GROUPS, PROGRAMS = range(61001, 61007), range(62001, 62004), ("ann", "bea", "cid", "dan")
NETWORKS = (
    networks("10.77.0.2/32", "fd77::2/128"), networks("10.0.0.0/8", "fd77::/64"), networks("10.77.0.0/24"),
    networks("fd00::/8"), networks("10.1.0.0/16", "fd01::/16"), networks("10.77.0.128/25", "fd77::8:0/112"),
)  # fmt: skip
LOCAL_PORTS, REMOTE_PORTS = range(6000, 6012), range(5000, 5030)
SOCKETS = 30


def ports(chance: random.Random, among: range) -> tuple[tuple[int, int], ...]:
    firsts = chance.sample(among, chance.choice((1, 1, 1, 2, 4)))
    return tuple((first, first + chance.choice((0, 0, 0, 3, 40))) for first in firsts)


def selectors(chance: random.Random, count: int, programs: bool) -> list[Selector]:
    """So many that ask for the same keys."""
    keys = {
        "remote_port": lambda: ports(chance, REMOTE_PORTS),
        "local_port": lambda: ports(chance, LOCAL_PORTS),
        "remote": lambda: chance.choice(NETWORKS),
        "user": lambda: tuple(chance.sample(USERS, chance.choice((1, 2)))),
        "group": lambda: (chance.choice(GROUPS),),
        **({"program": lambda: (chance.choice(PROGRAMS),)} if programs else {}),
    }
    chosen = chance.sample(list(keys), chance.randint(1, 3))
    return [Selector(("udp",), **{key: keys[key]() for key in chosen}) for _ in range(count)]


def selects(select: Selector, owner: Owner, local_port: int, remote: str, remote_port: int) -> bool:
    def among(ranges: tuple[tuple[int, int], ...], port: int) -> bool:
        return not ranges or any(first <= port <= last for first, last in ranges)

    address = ip_address(remote)
    return (
        among(select.local_port, local_port)
        and among(select.remote_port, remote_port)
        and (not select.remote or any(address in each for each in select.remote))
        and (not select.user or owner.user in select.user)
        and (not select.group or owner.group in select.group)
        and (not select.program or owner.program in select.program)
    )


@every_family
@pytest.mark.parametrize("leaf", [tree.LEAF, 1])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_that_selects_has_it(
    hosts: Hosts, family: int, leaf: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "LEAF", leaf)
    chance = random.Random(f"{seed} {family}")
    programs = seed % 2 == 1
    chosen = [
        (select, selectors(chance, 1, programs)[0] if chance.random() < 0.2 else None)
        for _ in range(chance.randint(1, 4))
        for select in selectors(chance, chance.choice((5, 20, 60)), programs)
    ]
    wanted = plan(*(select if unless is None else (select, unless) for select, unless in chosen))
    expected: dict[str, int] = {}
    with diverting(hosts.a, "iptables", wanted) as diverted, tagging(hosts, wanted):
        for _ in range(SOCKETS):
            owner = Owner(chance.choice(USERS), chance.choice(GROUPS), "", chance.choice(PROGRAMS))
            local, remote = chance.choice(LOCAL_PORTS), chance.choice(REMOTE_PORTS)
            at = (owner, local, hosts.b.address(family), remote)
            found = (
                number
                for number, (select, unless) in enumerate(chosen, 1)
                if selects(select, *at) and not (unless and selects(unless, *at))
            )
            number = next(found, 0)
            with owned_socket(hosts.a, family, UDP, owner, local) as sender:
                sender.sendto(b"x", (hosts.b.address(family), remote))
            if number:
                mark = f"out {MARKS.spread(number):#x}"
                expected[mark] = expected.get(mark, 0) + 1
        assert diverted.counts() == expected


@pytest.mark.parametrize("leaf", [tree.LEAF, 1])
def test_servers_of_many_policies_are_found_from_the_first_packet(
    hosts: Hosts, leaf: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On ingress, by the socket's tag and by its port; answers follow conntrack to the same policy."""
    monkeypatch.setattr(tree, "LEAF", leaf)
    chosen = [Selector(("udp",), user=(user,), local_port=((p, p),)) for user in USERS for p in LOCAL_PORTS]
    chosen += [Selector(("udp",), local_port=((port, port),)) for port in range(7000, 7060)]
    wanted = plan(*chosen)
    expected: dict[str, int] = {}
    with diverting(hosts.a, "iptables", wanted) as diverted, tagging(hosts, wanted):
        for number in (1, 5, 20, 39, 60, 72, 73, 100, 132):
            select = chosen[number - 1]
            (port, _), user = select.local_port[0], (select.user or (61099,))[0]
            for family in (V4, V6):
                with (
                    owned_socket(hosts.a, family, UDP, Owner(user), port) as server,
                    hosts.b.socket(family, socket.SOCK_DGRAM) as client,
                ):
                    client.settimeout(2)
                    client.sendto(b"question", (hosts.a.address(family), port))
                    data, sender = server.recvfrom(100)
                    server.sendto(data, sender)
                    assert client.recv(100) == b"question"
            expected |= {f"{side} {MARKS.spread(number):#x}": 2 for side in ("in", "out")}
        assert diverted.counts() == expected


def test_many_classes_are_found_by_their_connection(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP asks for the class that its SYN gave to conntrack."""
    monkeypatch.setattr(tree, "LEAF", 1)
    wanted = plan(*(Selector(("tcp",), remote_port=((port, port),)) for port in range(7000, 7100)))
    with diverting(hosts.a, "iptables", wanted) as diverted:
        for number in (1, 37, 64, 100):
            with (
                hosts.b.socket(V4, socket.SOCK_STREAM) as server,
                hosts.a.socket(V4, socket.SOCK_STREAM) as client,
            ):
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind((hosts.b.ipv4, 6999 + number))
                server.listen()
                client.settimeout(5)
                client.connect((hosts.b.ipv4, 6999 + number))
        found = {key.split()[1] for key in diverted.counts()}
        assert found == {f"{MARKS.spread(number):#x}" for number in (1, 37, 64, 100)}


def test_chains_are_never_deeper_than_the_kernel_takes(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies whose own chains are as deep as they get, in a tree as deep as it gets."""
    monkeypatch.setattr(tree, "LEAF", 1)
    odd = tuple((port, port + 1) for port in range(20000, 20100, 4))
    with new_cgroups("x", "y") as (x, y):
        rich = [
            Selector(
                ("udp", "tcp"), NETWORKS[0], NETWORKS[1], odd, ((port, port), *odd),
                user=(user, 9), group=(62001, 9), cgroup=(x, y),
            )
            for user in USERS
            for port in range(5000, 5050)
        ]  # fmt: skip
        unless = Selector((), NETWORKS[1], NETWORKS[0], odd, odd, (1, 2), (3, 4))
        wanted = plan(*((each, unless) if place % 2 else each for place, each in enumerate(rich)))
        with diverting(hosts.a, "iptables", wanted) as diverted:
            assert diverted.counts() == {}


def test_many_renumbering_policies_have_their_own_connections(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the map of known connections; a reload that takes most of them leaves the others theirs."""
    monkeypatch.setattr(tree, "LEAF", 2)
    numbers = range(1, 61)
    selectors = [Selector(("tcp",), remote_port=((7000 + number, 7000 + number),)) for number in numbers]
    wanted = plan(*selectors, renumbers=set(numbers))
    fewer = replace(wanted, diversions=wanted.diversions[30:])
    for_class = (1, 17, 31, 44, 60)
    with renumbering(hosts.a, wanted) as (recorder, connections), contextlib.ExitStack() as stack:
        open_ones = {}
        for number in for_class:
            server = stack.enter_context(hosts.b.socket(V4, socket.SOCK_STREAM))
            server.bind((hosts.b.ipv4, 7000 + number))
            server.listen()
            client = stack.enter_context(hosts.a.socket(V4, socket.SOCK_STREAM))
            client.settimeout(5)
            client.connect((hosts.b.ipv4, 7000 + number))
            open_ones[number] = client, stack.enter_context(server.accept()[0])
        change(hosts.a, fewer, connections)
        recorder.counts()
        recorder.seen.clear()
        for one, other in open_ones.values():
            exchange(one, other)
        seen = {key.split()[1] for key in recorder.counts()}
        assert seen == {f"{MARKS.spread(number):#x}" for number in for_class if number > 30}
