"""A compiled match selects what the same keys, compared in Python, select."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from layer45.fastpath.match import Match
from layer45.rules.diversion import Selector

PORTS = (1, 53, 5003, 5004, 5050, 5100, 5101, 65535)
ADDRESSES = {
    4: ("10.0.0.1", "10.0.1.1", "10.255.255.255", "192.0.2.129"),
    6: ("fd00::1", "fd00:0:0:1::1", "2001:db8::7f", "::ffff:10.0.0.1"),
}
NETWORKS = tuple(map(ip_network, (
    "0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "192.0.2.128/25", "::/0", "fd00::/8",
    "fd00::/64", "fd00::1/128", "2001:db8::/121",
)))  # fmt: skip
RANGES = ((53, 53), (5004, 5100), (1, 65535), (5101, 65535))

selectors = st.builds(
    Selector,
    protocol=st.sampled_from(((), ("udp",), ("tcp",), ("udp", "tcp"))),
    local=st.lists(st.sampled_from(NETWORKS), max_size=3).map(tuple),
    remote=st.lists(st.sampled_from(NETWORKS), max_size=3).map(tuple),
    local_port=st.lists(st.sampled_from(RANGES), max_size=2).map(tuple),
    remote_port=st.lists(st.sampled_from(RANGES), max_size=2).map(tuple),
    user=st.sampled_from(((), (1000,))),
)


@st.composite
def contexts(draw: st.DrawFn) -> tuple[str, str, int, str, int]:
    """protocol, local address and port, remote address and port"""
    version = draw(st.sampled_from((4, 6)))
    local, remote = draw(st.sampled_from(ADDRESSES[version])), draw(st.sampled_from(ADDRESSES[version]))
    ports = st.sampled_from(PORTS)
    return draw(st.sampled_from(("udp", "tcp"))), local, draw(ports), remote, draw(ports)


def packet(protocol: str, source: str, sport: int, target: str, dport: int) -> bytes:
    network = IPv6 if ":" in source else IP
    transport = UDP if protocol == "udp" else TCP
    return bytes(network(src=source, dst=target) / transport(sport=sport, dport=dport) / b"payload")


def expected(select: Selector, context: tuple[str, str, int, str, int]) -> bool:
    protocol, local, local_port, remote, remote_port = context
    return all((
        protocol in (select.protocol or ("udp", "tcp")),
        any(ip_address(local) in each for each in select.local) or not select.local,
        any(ip_address(remote) in each for each in select.remote) or not select.remote,
        any(a <= local_port <= b for a, b in select.local_port) or not select.local_port,
        any(a <= remote_port <= b for a, b in select.remote_port) or not select.remote_port,
    ))  # fmt: skip


@given(selectors, st.none() | selectors, contexts())
def test_equals_the_keys_compared_in_python(
    select: Selector, unless: Selector | None, context: tuple[str, str, int, str, int]
) -> None:
    protocol, local, local_port, remote, remote_port = context
    excepted = unless is not None and not unless.owned and expected(unless, context)
    wanted = expected(select, context) and not excepted
    match = Match(select, unless)
    assert match.selects(packet(protocol, local, local_port, remote, remote_port)) == wanted
    assert match.selects(packet(protocol, remote, remote_port, local, local_port), ingress=True) == wanted


@pytest.mark.parametrize("other", [bytes(IP() / ICMP()), b"", b"\x45", bytes(60)])
def test_selects_nothing_that_is_not_udp_or_tcp(other: bytes) -> None:
    assert not Match(Selector()).selects(other)
