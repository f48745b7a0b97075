"""Datagrams that outgrow the MTU: cut into fragments, or the sender is told what fits; both families.

a: client ── chain grows it ──▶ wire, MTU 1500 ──▶ b: an echo server that wants its tags
"""

import errno
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from .daemons import (
    Daemon,
    Service,
    assert_balanced,
    assert_no_checksum_errors,
    client_side,
    eventually,
    running,
    server_side,
)
from .datagrams import FAMILIES, LONGEST, connected, echo, exchange, payload
from .topology import Host, Hosts

pytestmark = pytest.mark.root

IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
IPV6_MTU_DISCOVER, IPV6_MTU = 23, 24
TAG = '{ module = "tag", id = "host-7", unmarked = "drop" }'
CHAINS = {
    "tag": (TAG, 18),
    "two_tags": ('{ module = "tag", id = "i", position = "front", unmarked = "drop" }, ' + TAG, 31),
    "fec": ('{ module = "fec", unmarked = "drop" }', 9),
    "duplicate": (f'{TAG}, {{ module = "duplicate", unmarked = "drop" }}', 34),
}
FRAGMENT = [
    Service(name, 7001 + at, chain, 'mtu = "fragment"')
    for at, (name, (chain, _)) in enumerate(CHAINS.items())
]
SIGNAL = [Service(f"{each.name}_signal", each.port + 100, each.chain, 'mtu = "signal"') for each in FRAGMENT]


def _insist(client: socket.socket) -> None:
    """The sender wants no fragments (DF), and to be told."""
    if client.family == socket.AF_INET:
        client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    else:
        client.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO)


def _path_mtu(client: socket.socket) -> int:
    if client.family == socket.AF_INET:
        return client.getsockopt(socket.IPPROTO_IP, IP_MTU)
    return client.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU)


def _fragments(packets: Sequence[Any]) -> int:
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6ExtHdrFragment

    v4 = sum(packet.haslayer(IP) and (packet[IP].flags.MF or packet[IP].frag > 0) for packet in packets)
    return v4 + sum(packet.haslayer(IPv6ExtHdrFragment) for packet in packets)


@pytest.fixture
def pair(hosts: Hosts) -> Iterator[tuple[Daemon, Daemon]]:
    """Two daemons with all services, and an echo server, on a wire where every checksum is checked."""
    for host in hosts:
        host.set_offloads(False)
    services = FRAGMENT + SIGNAL
    with (
        running(hosts.a, client_side(services)) as a,
        running(hosts.b, server_side(services)) as b,
        echo(hosts.b, *(service.port for service in services)),
    ):
        yield a, b
        for daemon in (a, b):
            assert_balanced(daemon.stats())
    assert_no_checksum_errors(*hosts)


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_fragment(hosts: Hosts, pair: tuple[Daemon, Daemon], family: int) -> None:
    """Every length around the border arrives, in fragments where it outgrew the MTU."""
    for service in FRAGMENT:
        growth = CHAINS[service.name][1]
        sent = [
            payload(length, length) for length in range(LONGEST[family] - growth - 3, LONGEST[family] + 1)
        ]
        with connected(hosts.a, family, hosts.b, service.port) as client, hosts.b.capture() as capture:
            assert sorted(exchange(client, sent)) == sorted(sent)
            assert _path_mtu(client) == 1500
        assert _fragments(capture.packets()) >= 2 * growth
    if family == socket.AF_INET:  # there the kernel's own discovery had set DF
        assert all(daemon.engine()["fragmentation_allowed"] > 0 for daemon in pair)


# IPv6 has no bit to clear: where the sender insists, the kernel refuses to cut what grew beyond the route's
# MTU, and the program hears EMSGSIZE for a datagram of a size that it was told fits. Mended, the mark goes.
STUCK = pytest.mark.xfail(
    strict=True, raises=OSError, reason="IPV6_PMTUDISC_DO and growth: the kernel refuses"
)
INSISTENT = pytest.mark.parametrize(
    "family", [FAMILIES[0], pytest.param(FAMILIES[1], marks=STUCK)], ids=["ipv4", "ipv6"]
)


@INSISTENT
def test_fragment_although_the_sender_insists(hosts: Hosts, pair: object, family: int) -> None:
    """IP_PMTUDISC_DO: the program wants no fragments, but it cannot know what we add."""
    sent = [payload(LONGEST[family] - less, less) for less in (18, 17, 1, 0)]
    with connected(hosts.a, family, hosts.b, FRAGMENT[0].port) as client:
        _insist(client)
        assert sorted(exchange(client, sent)) == sorted(sent)
        assert _path_mtu(client) == 1500


def _learn(hosts: Hosts, client: socket.socket, service: Service) -> int:
    """Sends one that is too long, which vanishes; the growth in bytes, as the sender was told."""
    growth = CHAINS[service.name.removesuffix("_signal")][1]
    longest = LONGEST[socket.AddressFamily(client.family)]
    fitting = payload(longest - growth, growth)
    assert exchange(client, [fitting]) == [fitting]
    client.send(payload(longest))
    eventually(lambda: _path_mtu(client) == 1500 - growth)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
    with pytest.raises(OSError) as told:
        client.send(payload(longest - growth + 1))
    assert told.value.errno == errno.EMSGSIZE
    return growth


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_signal(hosts: Hosts, pair: tuple[Daemon, Daemon], family: int) -> None:
    """One that is too long vanishes, and its sender is told how much is not; smaller ones arrive."""
    for service in SIGNAL:
        with connected(hosts.a, family, hosts.b, service.port) as client:
            _insist(client)
            smaller = payload(LONGEST[family] - 2 * _learn(hosts, client, service))
            assert exchange(client, [smaller]) == [smaller]
        _forget_path(hosts)
    engine = pair[0].engine()
    assert engine["too_big_signalled"] == len(SIGNAL) + 1  # a duplicate is told of too
    assert engine["too_big"] > engine["too_big_signalled"]  # of fec's repairs nobody is


@INSISTENT
def test_signal_and_fill_the_path(hosts: Hosts, pair: object, family: int) -> None:
    """As much as the sender was told fits."""
    with connected(hosts.a, family, hosts.b, SIGNAL[0].port) as client:
        _insist(client)
        fitting = payload(LONGEST[family] - _learn(hosts, client, SIGNAL[0]))
        assert exchange(client, [fitting, b"and", fitting]) == [fitting, b"and", fitting]


def _forget_path(hosts: Hosts) -> None:
    """What a host learned of a path concerns all its sockets: the next service shall begin anew."""
    for family in ("-4", "-6"):
        hosts.a.run(["ip", family, "route", "flush", "cache"])


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_a_path_narrower_than_the_device(hosts: Hosts, pair: object, family: int) -> None:
    """The sender knows the path and fills it; what the chain adds must not make that undeliverable."""
    _fill_a_narrow_path(hosts, family, insists=False)


@INSISTENT
def test_a_path_narrower_than_the_device_and_no_fragments(hosts: Hosts, pair: object, family: int) -> None:
    """The same, where the sender insists."""
    _fill_a_narrow_path(hosts, family, insists=True)


def _fill_a_narrow_path(hosts: Hosts, family: int, insists: bool) -> None:
    narrow_path(hosts.a, family, 1400)
    sent = [payload(LONGEST[family] - 100 - less, less) for less in range(30)]
    for service in (FRAGMENT[0], SIGNAL[0]):
        with connected(hosts.a, family, hosts.b, service.port) as client:
            if insists:
                _insist(client)
            assert _path_mtu(client) == 1400
            assert sorted(exchange(client, sent)) == sorted(sent)


def narrow_path(host: Host, family: int, mtu: int) -> None:
    """The host's route to the other end."""
    network, metric = ("10.77.0.0/24", "0") if family == socket.AF_INET else ("fd77::/64", "256")
    words = [network, "dev", host.device, "proto", "kernel", "metric", metric, "mtu", str(mtu)]
    host.run(["ip", "-6" if family == socket.AF_INET6 else "-4", "route", "replace", *words])
