"""fec where the sender's queue overflows: datagrams pass without ids then, and no program sees a difference.

a: one sender, as fast as it can ── fec, a short queue ──▶ wire ──▶ fec ── b: a sink

Nothing here depends on how much arrives.
"""

import socket
import time
from collections import Counter

import pytest

from .daemons import (
    Service,
    assert_balanced,
    assert_no_checksum_errors,
    client_side,
    running,
    server_side,
)
from .datagrams import FAMILIES, connected
from .one_way import Sink, keep_tables
from .topology import Hosts

pytestmark = pytest.mark.root

PORT = 7701
CHAIN = '{ module = "fec" }'
OPEN, CLOSED = (
    [Service("full", PORT, CHAIN, f'on_failure = "{on_failure}"')] for on_failure in ("open", "closed")
)
SO_SNDBUFFORCE = 32
BYTES = 200
SECONDS = 1.5


def content(number: int) -> bytes:
    """All of one length, so that what is wrongly put together looks right. It does not end like an id."""
    return number.to_bytes(4, "big") * (BYTES // 4 - 1) + b"text"


def send_as_fast_as_possible(client: socket.socket) -> int:
    """How many."""
    client.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 32 << 20)  # else it waits for its queue
    client.setblocking(True)
    until, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        for number in range(count, count + 100):
            client.send(content(number))
        count += 100
    return count


@pytest.mark.parametrize(("family", "length"), [(FAMILIES[0], 64), (FAMILIES[1], 2048)], ids=["ipv4", "ipv6"])
def test_what_a_full_queue_lets_pass(hosts: Hosts, family: int, length: int) -> None:
    """Each that arrives was sent as it is: no id, no repair, none put together of others. None comes twice.
    The receiver's queue shall pass nothing that finds no room in it: that policy is closed."""
    for host in hosts:
        host.set_offloads(False)
        keep_tables(host)
    with (
        running(hosts.a, client_side(OPEN), f"queue_length = {length}\nmax_held = {length // 2}") as a,
        running(hosts.b, server_side(CLOSED), "queue_length = 65536") as b,
    ):
        with Sink(hosts.b, PORT) as sink, connected(hosts.a, family, hosts.b, PORT) as client:
            count = send_as_fast_as_possible(client)
        assert_balanced(a.stats(), ("pool_empty",))  # with so few held, repairs are not sent
        there = b.counters("full", "fec")
    assert_no_checksum_errors(*hosts)
    received = sink.payloads(PORT)
    print(f"{count} sent, {len(received)} received, {there['arrived']} of them with an id")
    assert not set(received) - {content(number) for number in range(count)}
    assert not [each for each, times in Counter(received).items() if times > 1]
    assert there["unmarked"] > 0 or length > 64  # a queue that short does overflow
