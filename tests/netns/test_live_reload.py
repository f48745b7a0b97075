"""Reload and end under traffic: nothing is lost, what changed is in effect, what did not goes on as it was.

a: steady streams to 7001 (kept) and 7002 (changes) ──▶ wire ──▶ b: an echo server
"""

import socket
import time

import pytest

from .daemons import Service, assert_balanced, assert_no_checksum_errors, client_side, running, server_side
from .datagrams import FAMILIES, Stream, connected, echo, exchange
from .topology import Hosts

pytestmark = pytest.mark.root

KEPT = Service("kept", 7001, '{ module = "tag", id = "kept", unmarked = "drop" }')
PACE = 2000
RELOADS = 20


def _changing(generation: int) -> Service:
    return Service("changes", 7002, f'{{ module = "tag", id = "generation-{generation}" }}')


def test_twenty_reloads_at_2000_packets_per_second(hosts: Hosts) -> None:
    """No datagram is lost; the kept policy's numbering goes on, the changed one is in effect."""
    services = [KEPT, _changing(0)]
    with (
        running(hosts.a, client_side(services)) as a,
        running(hosts.b, server_side(services)) as b,
        echo(hosts.b, 7001, 7002),
        connected(hosts.a, socket.AF_INET, hosts.b, 7001) as client,
        connected(hosts.a, socket.AF_INET6, hosts.b, 7002) as other,
    ):
        with Stream(client, PACE) as stream:
            for generation in range(1, RELOADS + 1):
                services = [KEPT, _changing(generation)]
                a.reload(client_side(services))
                if generation % 5 == 0:
                    b.reload(server_side(services))
                with hosts.b.capture("udp dst port 7002") as capture:
                    assert exchange(other, [b"now"]) == [b"now"]
                assert b"now" + b"generation-%d" % generation in capture.content
        assert stream.sent > RELOADS * PACE // 20
        stream.assert_complete()
        assert stream.numbers() == sorted(stream.numbers())
        for daemon in (a, b):
            assert_balanced(daemon.stats())
            assert not [queue for queue in daemon.ask("status")["queues"] if queue["dropped"]]
            tag = daemon.counters("kept", "tag")
            assert tag["stripped"] == tag["tagged"] == stream.sent
            assert tag["gaps"] == tag["restarts"] == tag["reordered"] == tag["unmarked"] == 0
            kept = [flow for flow in daemon.flows() if flow["policy"] == "kept"]
            assert [flow["egress_packets"] for flow in kept] == [stream.sent]
    assert_no_checksum_errors(*hosts)


def test_policies_come_and_go_under_traffic(hosts: Hosts) -> None:
    """A policy taken away leaves its flow uncustomized, one brought back customizes it; a queue group too."""
    fresh = Service("fresh", 7002, '{ module = "drop", length = "65535" }', 'on_failure = "closed"')
    with (
        running(hosts.a, client_side([KEPT])) as a,
        running(hosts.b, server_side([Service("kept", 7001, '{ module = "tag", id = "b" }')])) as b,
        echo(hosts.b, 7001, 7002),
        connected(hosts.a, socket.AF_INET, hosts.b, 7002) as client,
        Stream(client, PACE) as stream,
    ):
        assert a.engine()["received"] == 0
        for _ in range(3):
            a.reload(client_side([KEPT, fresh]))
            seen = a.policy("fresh")["packets"]
            time.sleep(0.2)
            assert a.policy("fresh")["packets"] > seen
            assert len(a.ask("status")["queues"]) == 2
            a.reload(client_side([KEPT]))
            seen = a.engine()["received"]
            time.sleep(0.2)
            assert a.engine()["received"] == seen
            assert len(a.ask("status")["queues"]) == 1
        stream.stop()
        stream.assert_complete()
        assert_balanced(a.stats(), ("no_class",))  # what was queued when its policy went, passed
        assert b.engine()["received"] == 0
    assert_no_checksum_errors(*hosts)


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_the_end_of_a_daemon_loses_nothing(hosts: Hosts, family: int) -> None:
    """SIGTERM at 2000 packets per second, three times: rules go first, then the queue is emptied."""
    service = Service("open", 7001, '{ module = "tag", id = "x" }')
    with (
        running(hosts.a, client_side([service])) as a,
        echo(hosts.b, 7001),
        connected(hosts.a, family, hosts.b, 7001) as client,
        Stream(client, PACE) as stream,
    ):
        for _ in range(3):
            time.sleep(0.3)
            assert a.engine()["received"] > 0
            assert a.stop() < 2
            time.sleep(0.1)
            a.start()
        stream.stop()
        stream.assert_complete()
        assert_balanced(a.stats())
