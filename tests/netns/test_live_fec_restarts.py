"""fec while daemons stop, die, start and reload in the middle of a flow: no datagram is lost or altered.

a: a steady stream ── fec ──▶ wire ──▶ fec ── b: a sink
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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
from .datagrams import FAMILIES, connected
from .one_way import Pacer, Sink, keep_tables, losing
from .topology import Hosts

pytestmark = pytest.mark.root

PORT, PER_SECOND = 7401, 1000
ID_BYTES = 6
AT_A_TIME = 64  # packets that a daemon may have in hand when it is killed


def service(k: int = 10, m: int = 3, **more: object) -> list[Service]:
    """A policy with such a code."""
    keys = "".join(f", {key} = {value}" for key, value in more.items())
    return [Service("flow", PORT, f'{{ module = "fec", source_symbols = {k}, repair_symbols = {m}{keys} }}')]


@dataclass
class Flow:
    """A stream between two daemons; what came of it is known when the context has ended."""

    a: Daemon
    b: Daemon
    sent: list[bytes] = field(default_factory=list)
    received: list[tuple[bytes, int]] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)  # by the receiver's fec

    @property
    def payloads(self) -> list[bytes]:
        return [payload for payload, _ in self.received]


@contextmanager
def flowing(hosts: Hosts, family: int) -> Iterator[Flow]:
    for host in hosts:
        host.set_offloads(False)
        keep_tables(host)
    with running(hosts.a, client_side(service())) as a, running(hosts.b, server_side(service())) as b:
        flow = Flow(a, b)
        with (
            Sink(hosts.b, PORT) as sink,
            connected(hosts.a, family, hosts.b, PORT) as client,
            Pacer(client, PER_SECOND) as pacer,
        ):
            time.sleep(0.2)
            yield flow
            time.sleep(0.2)
        flow.sent, flow.received = pacer.sent, sink.received[PORT]
        flow.counted = b.counters("flow", "fec")
        for daemon in (a, b):
            assert_balanced(daemon.stats())
        assert_no_checksum_errors(*hosts)


def test_the_sender_starts_again(hosts: Hosts) -> None:
    """First in the blocks that the receiver remembers, then later. What is sent meanwhile passes as it is."""
    with flowing(hosts, socket.AF_INET6) as flow:
        for seconds in (1.0, 0.2):
            flow.a.stop()
            time.sleep(0.1)
            flow.a.start()
            time.sleep(seconds)
    assert sorted(flow.payloads) == flow.sent
    assert flow.counted["restarts"] == 2 and flow.counted["stale"] == flow.counted["invalid"] == 0
    assert flow.counted["unmarked"] > 100
    assert flow.counted["unmarked"] + flow.counted["arrived"] == len(flow.sent)


def test_the_sender_is_killed(hosts: Hosts) -> None:
    """kill -9 leaves half a block, and packets in the queue go down with it. Every tenth packet is lost, so
    blocks before and after are completed by repairs: with nothing of one another."""
    rule = f"--dport {PORT} -m statistic --mode nth --every 10 --packet 6"
    with flowing(hosts, socket.AF_INET) as flow, losing(hosts.b, socket.AF_INET, rule):
        flow.a.kill()
        flow.a.start()
        time.sleep(0.5)
    received, counted = flow.payloads, flow.counted
    assert len(set(received)) == len(received)
    assert set(received) <= set(flow.sent)
    assert counted["restarts"] == 1 and counted["recovered"] > 30
    lost = len(flow.sent) - len(received)
    print(f"{lost} of {len(flow.sent)} lost, {counted['unmarked']} arrived without an id")
    # A tenth of what had no id, what the daemon had in hand, and half a block that was not recovered.
    assert lost <= counted["unmarked"] // 9 + AT_A_TIME + 10


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_the_receiver_starts_again(hosts: Hosts, killed: bool) -> None:
    """While it is gone, an open policy lets pass what comes, with its id, and repairs too. Before and after,
    each datagram arrives as it was."""
    with flowing(hosts, FAMILIES[killed]) as flow:
        if killed:
            flow.b.kill()
        else:
            flow.b.stop()
        time.sleep(0.1)
        flow.b.start()
        up_ns = time.monotonic_ns()
        time.sleep(0.5)
    sent = set(flow.sent)
    whole = [payload for payload in flow.payloads if payload in sent]
    with_id = [payload[:-ID_BYTES] for payload in flow.payloads if payload[:-ID_BYTES] in sent]
    others = [each for each in flow.payloads if each not in sent and each[:-ID_BYTES] not in sent]
    missing = sent - set(whole) - set(with_id)
    print(f"{len(whole)} whole, {len(with_id)} with ids, {len(others)} repairs, {len(missing)} missing")
    assert len(missing) <= (AT_A_TIME if killed else 0)
    assert len(set(whole)) == len(whole) and len(set(with_id)) == len(with_id)
    assert not set(whole) & set(with_id)
    assert all(len(each) == len(flow.sent[0]) + 3 + ID_BYTES for each in others)
    assert all(payload in sent for payload, arrived_ns in flow.received if arrived_ns > up_ns + 50_000_000)
    assert flow.counted["unmarked"] == 0


def test_reload_under_traffic(hosts: Hosts) -> None:
    """Other parameters on the sender, on the receiver, on both."""
    with flowing(hosts, socket.AF_INET6) as flow:
        for at, code in enumerate([(20, 4), (1, 1), (32, 8)]):
            if at != 1:
                flow.a.reload(client_side(service(*code)))
            if at != 0:
                flow.b.reload(server_side(service(*code)))
    assert sorted(flow.payloads) == flow.sent
    print(flow.counted)
    assert flow.counted["stale"] == flow.counted["invalid"] == flow.counted["unmarked"] == 0


def test_reload_of_the_sender_is_a_restart(hosts: Hosts) -> None:
    """Counted as such. Every 14th packet is lost: one of a block, and recovered. Where a reload ends a block
    its repairs may, on a busy machine, leave behind the first datagrams of the next numbering: of no use."""
    rule = f"--dport {PORT} -m statistic --mode nth --every 14 --packet 6"
    with flowing(hosts, socket.AF_INET) as flow, losing(hosts.b, socket.AF_INET, rule):
        for k in (11, 12, 10):
            flow.a.reload(client_side(service(k)))
    assert len(set(flow.payloads)) == len(flow.payloads)
    assert set(flow.payloads) <= set(flow.sent)
    assert len(flow.payloads) >= len(flow.sent) - 3
    assert flow.counted["restarts"] == 3 and flow.counted["recovered"] > 20
    assert flow.counted["invalid"] == flow.counted["unmarked"] == 0
