"""Several workers: flows spread over them, and both directions of a flow meet in the same one.

a: 64 clients ──▶ wire ──▶ b: an echo server. Two workers on both hosts.
"""

from contextlib import ExitStack

import pytest

from .daemons import (
    Daemon,
    Service,
    assert_balanced,
    assert_no_checksum_errors,
    client_side,
    running,
    server_side,
)
from .datagrams import FAMILIES, connected, echo, exchange, payload
from .topology import Hosts

pytestmark = pytest.mark.root

CHAIN = (
    '{ module = "tag", id = "w", unmarked = "drop" }, { module = "duplicate", copies = 3, unmarked = "drop" }'
)
FLOWS, ROUNDS = 64, 10


@pytest.mark.parametrize("workers", [2, 3])
def test_flows_spread_and_meet(hosts: Hosts, workers: int) -> None:
    """Tags without a gap and copies removed on every flow need one and the same worker for all of a flow."""
    service = [Service("spread", 7001, CHAIN, 'on_failure = "closed"')]
    settings = f"workers = {workers}"
    with (
        running(hosts.a, client_side(service), settings) as a,
        running(hosts.b, server_side(service), settings) as b,
        echo(hosts.b, 7001),
        ExitStack() as open_sockets,
    ):
        clients = [
            open_sockets.enter_context(connected(hosts.a, family, hosts.b, 7001))
            for _ in range(FLOWS // 2)
            for family in FAMILIES
        ]
        sent = [payload(40 + number, number) for number in range(ROUNDS)]
        for number, client in enumerate(clients):
            assert exchange(client, sent) == sent, number
        for daemon in (a, b):
            _check(daemon, workers)
    assert_no_checksum_errors(*hosts)


def _check(daemon: Daemon, workers: int) -> None:
    queues = daemon.ask("status")["queues"]
    assert len(queues) == workers
    assert sum(queue["live_flows"] for queue in queues) == FLOWS
    assert all(queue["live_flows"] > FLOWS // workers // 4 for queue in queues)
    flows = daemon.flows()
    assert len({(flow["local"], flow["remote"]) for flow in flows}) == len(flows) == FLOWS
    assert all(flow["egress_packets"] == ROUNDS and flow["ingress_packets"] == 3 * ROUNDS for flow in flows)
    tag, duplicate = daemon.counters("spread", "tag"), daemon.counters("spread", "duplicate")
    assert tag["tagged"] == tag["stripped"] == duplicate["delivered"] == FLOWS * ROUNDS
    assert duplicate["duplicates"] == 2 * FLOWS * ROUNDS
    assert tag["gaps"] == tag["reordered"] == tag["restarts"] == tag["unmarked"] == 0
    assert_balanced(daemon.stats())
