"""Layouts of all kinds: one for each direction, several in a chain, tiny and huge ones; small MTUs; loopback.

a ── chain ──▶ wire ──▶ its mirror ── b
"""

import time
from collections.abc import Iterator

import pytest

from .daemons import assert_balanced, assert_no_checksum_errors, client_side, running, server_side
from .datagrams import FAMILIES, both_families
from .streams import (
    TAG,
    Road,
    assert_nobody_noticed,
    both_ways,
    counted,
    customized,
    engine,
    invalid_packets,
    raise_firewall,
    small_talk,
    stats,
    streams,
    tcp,
)
from .topology import Hosts, two_hosts

pytestmark = pytest.mark.root

COUNT = 300_000


def _tag(every_bytes: int, tag_bytes: int, direction: str = "") -> str:
    only = f', direction = "{direction}"' if direction else ""
    words = f"every_bytes = {every_bytes}, tag_bytes = {tag_bytes}{only}"
    return f'{{ module = "stream_tag", id = "T", {words} }}'


OUT, BACK = (700, 11), (1500, 40)
KEY = 'key = "sixteen bytes it is"'
SCRAMBLE = f'{{ module = "scramble", {KEY} }}'
CHAINS: dict[str, tuple[str, str | None]] = {
    "default": (TAG, None),
    "apart": (
        f"{_tag(*OUT, 'egress')}, {_tag(*BACK, 'ingress')}",
        f"{_tag(*BACK, 'egress')}, {_tag(*OUT, 'ingress')}",
    ),
    "out_only": (_tag(*OUT, "egress"), _tag(*OUT, "ingress")),
    "back_only": (_tag(*BACK, "ingress"), _tag(*BACK, "egress")),
    "two": (f"{_tag(1000, 32)}, {_tag(97, 3)}", None),
    "three": (f"{_tag(16, 1)}, {_tag(17, 2)}, {_tag(5000, 255)}", None),
    "every_other": (_tag(16, 1), None),
    "mostly_tags": (_tag(16, 255), None),
    "odd": (_tag(333, 7), None),
    "longer_than_a_segment": (_tag(100_000, 255), None),
    "scrambled": (f"{_tag(500, 20)}, {SCRAMBLE}", None),
    "tagged_behind": (f"{SCRAMBLE}, {_tag(500, 21)}", None),
}
SERVICES = [tcp(name, 8200 + at, *chains) for at, (name, chains) in enumerate(CHAINS.items())]
PORT = {service.name: service.port for service in SERVICES}


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    with two_hosts() as hosts, streams(hosts, SERVICES) as (a, b):
        yield Road(hosts, a, b)


@pytest.mark.parametrize("name", CHAINS)
@both_families
def test_layout(road: Road, name: str, family: int) -> None:
    """Many bytes both ways at once, and messages of all lengths around a run's and a segment's."""
    with counted(*road.daemons) as (a, b):
        both_ways(road.hosts, family, PORT[name], COUNT)
        small_talk(road.hosts, family, PORT[name], [*range(1, 40), 999, 1000, 1001, 1400, 1460, 3000, 1])
    assert a["connections_customized"] == b["connections_customized"] == 2
    assert a["connections_alone"] == b["connections_alone"] == 0
    assert_nobody_noticed(road.hosts)


@pytest.mark.parametrize("mtu", [1400, 1280])
def test_a_smaller_mtu_at_one_end(road: Road, mtu: int) -> None:
    """What is longer than that is lost on the way, by either end's device."""
    for host in road.hosts:
        host.set_offloads(False)
    road.hosts.b.run(["ip", "link", "set", "eth0", "mtu", str(mtu)])
    time.sleep(1.1)  # the engine reads a device's MTU once a second
    try:
        for name in ("default", "two", "every_other", "apart"):
            for family in FAMILIES:
                with counted(*road.daemons) as (a, b):
                    both_ways(road.hosts, family, PORT[name], COUNT)
                assert a["connections_customized"] == b["connections_customized"] == 1
    finally:
        road.hosts.b.run(["ip", "link", "set", "eth0", "mtu", "1500"])
        for host in road.hosts:
            host.set_offloads(True)
    assert_nobody_noticed(road.hosts)


def test_both_ends_on_one_host(hosts: Hosts) -> None:
    """Over loopback, with its MTU of 65,536, and with a host's own address: one daemon is both ends."""
    host = hosts.a
    raise_firewall(host)
    ends = client_side([tcp("client", 8300, TAG)]), server_side([tcp("server", 8300, TAG)])
    with running(host, ends[0] + "priority = 1\n" + ends[1]) as daemon:
        here = Hosts(host, host)
        for family in FAMILIES:
            both_ways(here, family, 8300, 10 * COUNT)
            small_talk(here, family, 8300, range(1, 40))
        assert customized(daemon) == 8
        assert_balanced(stats(daemon))
        assert engine(daemon)["segments_lost"] == engine(daemon)["connections_alone"] == 0
    assert invalid_packets(host) == 0
    assert_no_checksum_errors(host)
