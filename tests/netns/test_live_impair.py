"""impair on a wire: what it does in a replay, it does to live packets, both ways.

a: client ── impair ──▶ wire ──▶ b: echo server, and back; no daemon on b
"""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from layer45.modules.impair.reference import happens, mixed, numbered

from .daemons import Daemon, Service, assert_balanced, client_side, running
from .datagrams import both_families, connected, echo, exchange, payloads
from .topology import Hosts, two_hosts

pytestmark = pytest.mark.root

SEED, LOSS, SENT = 5, 20, 200
CHAINS = {
    "late": '{ module = "impair", delay_ms = 30 }',
    "lossy": f'{{ module = "impair", seed = {SEED}, loss_percent = {LOSS}, direction = "egress" }}',
    "broken": '{ module = "impair", corrupt_percent = 100, direction = "egress" }',
    "broken_late": '{ module = "impair", corrupt_percent = 100, delay_ms = 5, direction = "egress" }',
    "broken_back": '{ module = "impair", corrupt_percent = 100, direction = "ingress" }',
    "mended": '{ module = "impair", corrupt_percent = 100, corrupt_checksum = "mend", direction = "egress" }',
    "twice": '{ module = "impair", duplicate_percent = 100, delay_ms = 5, direction = "egress" }',
    "slow": '{ module = "impair", rate_kbit_per_s = 800, queue_ms = 10000, direction = "egress" }',
}
SERVICES = [Service(name, 7101 + at, chain) for at, (name, chain) in enumerate(CHAINS.items())]
PORT = {service.name: service.port for service in SERVICES}


@dataclass
class Road:
    """Two hosts, the daemon of the first, and an echo server on the other."""

    hosts: Hosts
    a: Daemon

    def exchange(self, family: int, name: str, sent: list[bytes]) -> tuple[list[bytes], float]:
        """What came back, and after how many seconds the last of it did at the earliest."""
        with connected(self.hosts.a, family, self.hosts.b, PORT[name]) as client:
            begun = time.monotonic()
            received = exchange(client, sent, quiet_s=0.7)
        assert_balanced(self.a.stats())
        return received, time.monotonic() - begun


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    with (
        two_hosts() as hosts,
        running(hosts.a, client_side(SERVICES)) as a,
        echo(hosts.b, *PORT.values()),
    ):
        yield Road(hosts, a)


@both_families
def test_packets_are_late_both_ways_and_none_is_lost(road: Road, family: int) -> None:
    with connected(road.hosts.a, family, road.hosts.b, PORT["late"]) as client:
        for _ in range(10):
            begun = time.monotonic()
            assert exchange(client, [b"there and back"]) == [b"there and back"]
            assert time.monotonic() - begun > 0.060
    sent = payloads(range(100))
    assert road.exchange(family, "late", sent)[0] == sent
    assert road.a.counters("late", "impair")["not_held"] == 0


@both_families
def test_the_packets_that_the_seed_names_are_lost(road: Road, family: int) -> None:
    stream = mixed(2 * SEED)
    fates = [happens(numbered(stream, at + 1), "random loss", LOSS) for at in range(SENT)]
    sent = payloads([40] * SENT)
    received, _ = road.exchange(family, "lossy", sent)
    assert received == [each for each, is_lost in zip(sent, fates, strict=True) if not is_lost]
    assert len(received) < SENT


@pytest.mark.parametrize("offloads", [True, False], ids=["offloads", "whole_sums"])
@pytest.mark.parametrize("name", ["broken", "broken_late", "broken_back"])
@both_families
def test_the_receivers_kernel_drops_what_is_broken(
    road: Road, family: int, name: str, offloads: bool
) -> None:
    """Also where the sender's kernel left the checksum to the device."""
    receiver = road.hosts.a if name == "broken_back" else road.hosts.b
    for host in road.hosts:
        host.set_offloads(offloads)
    before = sum(receiver.checksum_errors().values())
    assert road.exchange(family, name, payloads(range(1, 41)))[0] == []
    assert sum(receiver.checksum_errors().values()) == before + 40


@both_families
def test_what_is_mended_arrives_with_one_wrong_bit(road: Road, family: int) -> None:
    sent = payloads(range(1, 60))
    received, _ = road.exchange(family, "mended", sent)
    assert [wrong_bits(*pair) for pair in zip(sent, received, strict=True)] == [1] * len(sent)


def wrong_bits(one: bytes, other: bytes) -> int:
    assert len(one) == len(other)
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


@both_families
def test_everything_comes_twice(road: Road, family: int) -> None:
    sent = payloads(range(50))
    received, _ = road.exchange(family, "twice", sent)
    assert sorted(received) == sorted(2 * sent)


def test_a_slow_link_takes_its_time(road: Road) -> None:
    sent = payloads([972] * 50)  # 1000 bytes with headers: 10 ms each
    received, seconds = road.exchange(socket.AF_INET, "slow", sent)
    assert received == sent
    assert 0.5 < seconds < 1.5
