"""Streams on a bad network: loss, reordering, delay and copies; SHA-256 equal, and no stall.

a ── stream_tag, impair ──▶ wire with loss both ways ──▶ stream_tag ── b
"""

import socket
from collections.abc import Iterator

import pytest

from .datagrams import both_families
from .streams import (
    TAG,
    Road,
    assert_nobody_noticed,
    both_ways,
    counted,
    have_raw_table,
    loss,
    small_talk,
    streams,
    tcp,
)
from .topology import two_hosts

pytestmark = pytest.mark.root

COUNT = 2_000_000
TINY = '{ module = "stream_tag", id = "T", every_bytes = 61, tag_bytes = 9 }'
ROUGH = "loss_percent = 2, delay_ms = 4, jitter_ms = 3, reorder_percent = 10"
IMPAIR = (
    f'{{ module = "impair", direction = "egress", {ROUGH}, duplicate_percent = 2 }},'
    f' {{ module = "impair", direction = "ingress", {ROUGH} }}'
)
SERVICES = [
    tcp("plain", 8400, TAG),
    tcp("tiny", 8401, TINY),
    tcp("impaired", 8402, f"{TAG}, {IMPAIR}", TAG),
    tcp("impaired_tiny", 8403, f"{TINY}, {IMPAIR}", TINY),
]
PORT = {service.name: service.port for service in SERVICES}


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    """Segments as on a real wire, so that single ones are lost."""
    with two_hosts() as hosts:
        for host in hosts:
            host.set_offloads(False)
            have_raw_table(host)
        with streams(hosts, SERVICES) as (a, b):
            yield Road(hosts, a, b)


@pytest.mark.parametrize("percent", [1, 5])
@pytest.mark.parametrize("name", ["plain", "tiny"])
@both_families
def test_loss_on_the_wire(road: Road, family: int, name: str, percent: float) -> None:
    """Retransmissions have other boundaries, and the same bytes."""
    with loss(road.hosts.a, percent), loss(road.hosts.b, percent), counted(*road.daemons) as (a, b):
        both_ways(road.hosts, family, PORT[name], COUNT)
    assert a["connections_customized"] == b["connections_customized"] == 1
    assert a[f"{name}.tags"] > b[f"{name}.stripped"] > 0  # some are sent again
    assert_nobody_noticed(road.hosts)


@pytest.mark.parametrize("setting", ["tcp_sack=0", "tcp_timestamps=0", "tcp_window_scaling=0", "tcp_dsack=0"])
def test_loss_without(road: Road, setting: str) -> None:
    """What TCP options make easier works without them too."""
    for host in road.hosts:
        host.run(["sysctl", "-q", f"net.ipv4.{setting}"])
    with loss(road.hosts.a, 2), loss(road.hosts.b, 2):
        both_ways(road.hosts, socket.AF_INET, PORT["plain"], COUNT)
    for host in road.hosts:
        host.run(["sysctl", "-q", f"net.ipv4.{setting.replace('=0', '=1')}"])
    assert_nobody_noticed(road.hosts)


@pytest.mark.parametrize("name", ["impaired", "impaired_tiny"])
@both_families
def test_impair_behind_the_stream(road: Road, family: int, name: str) -> None:
    """Held, doubled and lost segments of a customized connection."""
    with counted(*road.daemons) as (a, b):
        both_ways(road.hosts, family, PORT[name], COUNT // 4)
        small_talk(road.hosts, family, PORT[name], [1, 10, 100, 1000, 10_000])
    assert a["connections_customized"] == b["connections_customized"] == 2
    assert_nobody_noticed(road.hosts)
