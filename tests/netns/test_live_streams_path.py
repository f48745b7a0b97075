"""Paths narrower than the devices: what a router says of it, or the own kernel, reaches the sender's TCP.

    a ── stream_tag ──▶ MTU 1500 ── r: routes that are narrower ── MTU 1500 ◀── stream_tag ── b

A kernel that hears of the wire's sequence numbers takes no notice. One that is not heard by the engine itself
gets its segments back, which the chain made longer.
"""

import random
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from .datagrams import both_families
from .routed import ROUTER, narrow, routed_hosts
from .streams import (
    TAG,
    Road,
    connection,
    counted,
    dial,
    noise,
    streams,
    tcp,
    transfer,
    transfers,
)
from .test_live_mtu import narrow_path
from .test_rules_known import error_about, packet_of
from .topology import Host, Hosts, two_hosts

pytestmark = pytest.mark.root

PORT, PLAIN_PORT, CLOSED_PORT = 8200, 8201, 8202
SERVICES = [tcp("path", PORT, TAG)]
CONTENT = noise(1_000_000)
SOON_S = 3.0  # a stall lasts seconds, a good transfer milliseconds
CONNECTIONS = 12
EARLY = ["inject_errors"]  # pieces of the device's MTU, before the path's first error came


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def road(request: pytest.FixtureRequest) -> Iterator[tuple[Road, Host]]:
    """With a router."""
    settings = f"workers = {request.param}"
    with (
        routed_hosts() as (hosts, router),
        streams(hosts, SERVICES, settings=settings, faults=EARLY) as (a, b),
    ):
        yield Road(hosts, a, b), router


def _both_ways(hosts: Hosts, family: int, port: int = PORT) -> None:
    """One after the other, and soon."""
    begun = time.monotonic()
    with connection(hosts, family, port) as (client, server):
        assert transfer(server, client, CONTENT) == CONTENT
        assert transfer(client, server, CONTENT) == CONTENT
    assert time.monotonic() - begun < SOON_S


@pytest.mark.parametrize("mtu", [1400, 1300])
@pytest.mark.parametrize("offloads", [True, False], ids=["super-packets", "segments"])
@both_families
def test_a_router_in_the_middle(road: tuple[Road, Host], family: int, offloads: bool, mtu: int) -> None:
    """The kernels hear of it, whichever worker has the connection, and then nothing is too long any more."""
    both, router = road
    for host in both.hosts:
        host.set_offloads(offloads)
    narrow(router, family, mtu)
    for number in range(CONNECTIONS):
        with counted(*both.daemons) as (a, b):
            _both_ways(both.hosts, family)
        for each in (a, b):
            if number == 0:
                assert 0 < each["icmp_errors"] < 20 and each["inject_errors"] < 5
            else:  # the engine asks the kernel, which heard of it
                assert each["icmp_errors"] == each["inject_errors"] == 0, number
        assert a["other_protocol"] == b["other_protocol"] == 0
    assert [_path_mtu(host, peer, family) for host, peer in _both(both.hosts)] == [mtu, mtu]


def _both(hosts: Hosts) -> list[tuple[Host, Host]]:
    return [(hosts.a, hosts.b), (hosts.b, hosts.a)]


def _path_mtu(host: Host, peer: Host, family: int) -> int:
    words = host.run(["ip", "route", "get", peer.address(family)]).stdout.split()
    return int(words[words.index("mtu") + 1])


@pytest.mark.parametrize("offloads", [True, False], ids=["super-packets", "segments"])
@both_families
def test_a_route_of_the_senders(family: int, offloads: bool) -> None:
    """What the kernel knows already, the engine asks it: not even the first segment is too long."""
    with two_hosts() as hosts, streams(hosts, SERVICES) as daemons:
        for host, peer in _both(hosts):
            host.set_offloads(offloads)
            narrow_path(host, family, 1400)
            assert _path_mtu(host, peer, family) == 1400
        for _ in range(3):
            with counted(*daemons) as (a, b):
                _both_ways(hosts, family)
            for each in (a, b):
                assert each["icmp_errors"] == each["inject_errors"] == 0


@both_families
def test_errors_of_other_connections_are_as_before(family: int) -> None:
    """A refused connection, and a plain one on a narrow path: nothing of them comes to the queue."""
    with routed_hosts() as (hosts, router), streams(hosts, SERVICES) as daemons:
        narrow(router, family, 1300)
        reject = ["-p", "tcp", "--dport", str(CLOSED_PORT), "-j", "REJECT"]  # with a port unreachable
        router.run(["ip6tables" if family == socket.AF_INET6 else "iptables", "-A", "FORWARD", *reject])
        with counted(*daemons) as (a, b):
            _both_ways(hosts, family, PLAIN_PORT)
            with pytest.raises(OSError, match="refused"):
                dial(hosts.a, hosts.b, family, CLOSED_PORT).close()
        assert a["received"] == b["received"] == 0
        assert _path_mtu(hosts.a, hosts.b, family) == 1300


@both_families
def test_forged_errors_do_no_harm(road: tuple[Road, Host], family: int) -> None:
    """A stranger knows the connection, but not its numbers: errors of each kind, with the least MTU."""
    both, router = road
    with (
        counted(*both.daemons) as (a, b),
        connection(both.hosts, family, PORT) as (client, server),
        router.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
    ):
        chance, local = random.Random(4), client.getsockname()[1]
        assert transfers([(server, client, CONTENT)]) == [CONTENT]
        for number in range(2000):
            raw.sendto(_forged(both.hosts, family, local, chance), (both.hosts.a.address(family), 0))
            if number % 200 == 0:
                assert transfer(client, server, CONTENT) == CONTENT
        assert transfers([(server, client, CONTENT), (client, server, CONTENT)]) == [CONTENT] * 2
    assert a["icmp_errors"] > 1000 and a["segments_lost"] == b["segments_lost"] == 0
    assert "mtu 5" not in both.hosts.a.run(["ip", "route", "get", both.hosts.b.ipv4]).stdout


def _forged(hosts: Hosts, family: int, local: int, chance: random.Random) -> bytes:
    """From nowhere, to a."""
    quoted = bytearray(packet_of(hosts.a.address(family), hosts.b.address(family), local, PORT))
    at = 20 if family == socket.AF_INET else 40
    quoted[at + 4 : at + 8] = chance.randbytes(4)
    if family == socket.AF_INET:
        quoted[2:4] = struct.pack("!H", 40)
    kind = chance.choice([3, 11, 12] if family == socket.AF_INET else [1, 2, 3, 4])
    return _summed(error_about(bytes(quoted), kind, mtu=552 if family == socket.AF_INET else 1280), family)


def _summed(packet: bytes, family: int) -> bytes:
    """With checksums, and the router's address."""
    from scapy.layers.inet import ICMP, IP
    from scapy.layers.inet6 import IPv6

    if family == socket.AF_INET:
        made = IP(packet)
        made.src, made.chksum, made.len = ROUTER[socket.AF_INET], None, None
        made[ICMP].chksum = None
        return bytes(made)
    six = IPv6(packet)
    six.src = ROUTER[socket.AF_INET6]
    six.payload.cksum = None
    return bytes(six)
