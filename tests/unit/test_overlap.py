# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""Overlap of selectors, against sockets tried one by one."""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from layer45.overlap import covers, intersection, overlap
from layer45.rules.diversion import Selector

NETWORKS = [
    ip_network(text) for text in ("10.0.0.0/8", "10.1.0.0/16", "10.1.1.1", "11.0.0.0/8", "fd00::/8", "::/0")
]
ADDRESSES = [
    ip_address(text)
    for text in ("10.0.0.1", "10.1.0.1", "10.1.1.1", "11.0.0.1", "9.9.9.9", "fd00::1", "fe80::1")
]
PORTS = [(1, 5), (5, 9), (3, 3), (7, 8)]
CGROUPS = ["a", "a/b", "ab", "a/b/c"]


@dataclass(frozen=True)
class Socket:
    protocol: str
    local: Any
    remote: Any
    remote_port: int
    user: int
    cgroup: str


def some(values: list[Any]) -> Any:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


SELECTORS = st.builds(
    Selector, protocol=some(["udp", "tcp"]), local=some(NETWORKS), remote=some(NETWORKS), remote_port=some(PORTS),
    user=some([0, 1]), cgroup=some(CGROUPS),
)  # fmt: skip
PAIRS = [(local, remote) for local, remote in product(ADDRESSES, repeat=2) if local.version == remote.version]
SOCKETS = [
    Socket(protocol, *pair, port, user, cgroup)
    for protocol, pair, port, user, cgroup in product(
        ["udp", "tcp"], PAIRS[::3], [3, 5, 7, 10], [0, 1], [*CGROUPS, "z"]
    )
]


def selects(select: Selector | None, socket: Socket) -> bool:
    return select is not None and all((
        not select.protocol or socket.protocol in select.protocol,
        not select.local or any(socket.local in each for each in select.local),
        not select.remote or any(socket.remote in each for each in select.remote),
        not select.remote_port or any(low <= socket.remote_port <= high for low, high in select.remote_port),
        not select.user or socket.user in select.user,
        not select.cgroup or any(f"{socket.cgroup}/".startswith(f"{each}/") for each in select.cgroup),
    ))  # fmt: skip


def has(select: Selector, unless: Selector | None, socket: Socket) -> bool:
    return selects(select, socket) and not selects(unless, socket)


UNLESS = st.none() | SELECTORS.filter(lambda select: select != Selector())


@given(SELECTORS, SELECTORS, UNLESS, UNLESS)
def test_what_both_match_is_an_overlap(one: Selector, two: Selector, not_one: Any, not_two: Any) -> None:
    if any(has(one, not_one, socket) and has(two, not_two, socket) for socket in SOCKETS):
        assert overlap(one, two, not_one, not_two)
        assert overlap(two, one, not_two, not_one)


@given(SELECTORS, SELECTORS)
def test_intersection_selects_what_both_do(one: Selector, two: Selector) -> None:
    both = intersection(one, two)
    for socket in SOCKETS[::7]:
        assert selects(both, socket) == (selects(one, socket) and selects(two, socket))


@given(SELECTORS, SELECTORS)
def test_covers_is_never_wrongly_true(outer: Selector, inner: Selector) -> None:
    if covers(outer, inner):
        assert all(selects(outer, socket) for socket in SOCKETS if selects(inner, socket))


def test_disjoint_keys() -> None:
    udp, tcp = Selector(protocol=("udp",)), Selector(protocol=("tcp",))
    assert not overlap(udp, tcp, None, None)
    assert not overlap(Selector(remote_port=((1, 4),)), Selector(remote_port=((5, 9),)), None, None)
    assert not overlap(Selector(cgroup=("a",)), Selector(cgroup=("ab",)), None, None)
    assert overlap(Selector(cgroup=("a",)), Selector(cgroup=("a/b",)), None, None)
    assert not overlap(Selector(local=(NETWORKS[0],)), Selector(remote=(NETWORKS[4],)), None, None)
    assert not overlap(Selector(), udp, udp, None)
    assert overlap(Selector(), udp, Selector(protocol=("udp",), user=(0,)), None)
