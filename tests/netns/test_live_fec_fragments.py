"""fec and fragments: what outgrows the MTU is cut, and put together again; a lone piece is nothing.

a: a client ── fec ──▶ wire, MTU 1500 ──▶ connection tracking puts together ──▶ fec ── b: a sink

Offloads are off: every checksum is checked.
"""

import contextlib
import itertools
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ..modules.wire import datagram
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
from .datagrams import both_families, payloads
from .fragments import Cut, fragment, put_on_the_wire
from .one_way import Sink, keep_tables, losing, paced
from .topology import Hosts, two_hosts

pytestmark = pytest.mark.root

PORT, FROM_PORT = 5000, 4000  # those of wire.datagram
K, M = 10, 3
FEC = (
    f'{{ module = "fec", source_symbols = {K}, repair_symbols = {M}, deadline_ms = 1000, unmarked = "drop" }}'
)
SERVICES = [Service("fragments", PORT, FEC, 'mtu = "fragment"')]
VERSION = {socket.AF_INET: 4, socket.AF_INET6: 6}
PIECES = {socket.AF_INET: "ip[6:2] & 0x3fff != 0", socket.AF_INET6: "ip6[6] == 44"}  # to tcpdump
PIECES_TO_NFT = {socket.AF_INET: "ip frag-off & 0x3fff != 0", socket.AF_INET6: "exthdr frag exists"}


@dataclass
class Pair:
    """Two hosts with a daemon each."""

    hosts: Hosts
    a: Daemon
    b: Daemon

    def fec(self) -> dict[str, int]:
        """What b's has counted."""
        return self.b.counters("fragments", "fec")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with two_hosts() as hosts:
        for host in hosts:
            host.set_offloads(False)
            keep_tables(host)
        with running(hosts.a, client_side(SERVICES)) as a, running(hosts.b, server_side(SERVICES)) as b:
            yield Pair(hosts, a, b)
            for daemon in (a, b):
                assert_balanced(daemon.stats(), ("malformed",))
        assert_no_checksum_errors(*hosts)


def client_of(pair: Pair, family: int) -> socket.socket:
    client = pair.hosts.a.socket(family, socket.SOCK_DGRAM)
    client.bind(("", FROM_PORT))
    client.connect((pair.hosts.b.address(family), PORT))
    client.setblocking(False)
    return client


# --- what a sender cuts -----------------------------------------------------------------------

LENGTHS = [*range(1400, 1501), 2000, 2900, 3000, 4000, 4001, 6000, 8999, 9000, 9001]
BLOCKS = len(LENGTHS) // K
EVERY = 25  # of a block's pieces, 62 at most, no more than M are lost


@contextlib.contextmanager
def losing_datagrams(hosts: Hosts, family: int) -> Iterator[None]:
    """Whole ones: they have been put together before."""
    with losing(hosts.b, family, f"--dport {PORT} -m statistic --mode nth --every 10 --packet 6"):
        yield


@contextlib.contextmanager
def losing_pieces(hosts: Hosts, family: int) -> Iterator[None]:
    """As the wire does."""
    hosts.b.run(["nft", "add", "table", "netdev", "lossy"])
    hook = f"{{ type filter hook ingress device {hosts.b.device} priority 0; }}"
    try:
        hosts.b.run(["nft", f"add chain netdev lossy pieces {hook}"])
        rule = f"{PIECES_TO_NFT[socket.AddressFamily(family)]} numgen inc mod {EVERY} 6 drop"
        hosts.b.run(["nft", f"add rule netdev lossy pieces {rule}"])
        yield
    finally:
        hosts.b.run(["nft", "delete", "table", "netdev", "lossy"])


LOSSES = {
    "none": (lambda *_: contextlib.nullcontext(), 0),
    "datagrams": (losing_datagrams, 8),
    "pieces": (losing_pieces, 3),
}


@both_families
@pytest.mark.parametrize("lost", LOSSES)
def test_datagrams_near_and_beyond_the_mtu(pair: Pair, family: int, lost: str) -> None:
    """Each arrives as it was, once. Those that are lost are made anew, of repairs beyond the MTU too."""
    losses, fewest = LOSSES[lost]
    sent, before = payloads(LENGTHS), pair.fec()
    with (
        losses(pair.hosts, family),
        pair.hosts.b.capture(PIECES[family]) as capture,
        Sink(pair.hosts.b, PORT) as sink,
        client_of(pair, family) as client,
    ):
        paced(((client, each) for each in sent), per_second=500)
    counted = {name: value - before[name] for name, value in pair.fec().items() if value != before[name]}
    print(len(capture.packets()), counted)
    assert sorted(sink.payloads(PORT)) == sorted(sent)
    assert counted["arrived"] + counted.get("recovered", 0) == len(sent)
    assert counted.get("recovered", 0) >= fewest
    assert lost != "none" or (counted["arrived"] == len(sent) and counted["repairs_arrived"] >= BLOCKS * M)
    assert "unmarked" not in counted and "invalid" not in counted and "unrecovered" not in counted
    assert len(capture.packets()) > 140


# --- what no sender cuts ----------------------------------------------------------------------

FORGED_BYTES = 3000
END = 8 + FORGED_BYTES + 6  # of the datagram with its header and id
LONE = {
    "first": [Cut(0, 1400, True)],
    "its header only": [Cut(0, 8, True)],
    "middle": [Cut(1400, 2800, True)],
    "last": [Cut(2800, END, False)],
    "a gap": [Cut(0, 1400, True), Cut(2800, END, False)],
    "first twice": [Cut(0, 1400, True), Cut(0, 1400, True)],
    "overlapping": [Cut(0, 1400, True), Cut(1392, 2800, True), Cut(2800, END, False)],
    "overlapping, last one first": [Cut(2800, END, False), Cut(1400, 2808, True), Cut(0, 1400, True)],
    "behind the end": [Cut(1400, 2400, False), Cut(2400, 2408, True)],
}
EACH = 20


def forged(last_id: bytes, esi: int) -> bytes:
    """What fec would believe, if it were whole: of the next block."""
    sbn = int.from_bytes(last_id[:3], "big") + 1
    return bytes(FORGED_BYTES) + struct.pack("!IH", sbn << 8 | esi, K)


def lone_pieces(family: int, last_id: bytes) -> list[bytes]:
    serial = itertools.count(45_000)
    return [
        fragment(datagram(forged(last_id, esi), VERSION[socket.AddressFamily(family)], PORT), number, cut)
        for cuts in LONE.values()
        for number in itertools.islice(serial, EACH)
        for esi in (K - 1 if number % 2 else K + M - 1,)
        for cut in cuts
    ]


@both_families
def test_lone_and_overlapping_fragments_change_nothing(pair: Pair, family: int) -> None:
    """In the middle of a stream: none reaches a queue, and what comes behind them is recovered as ever."""
    sent = payloads([*range(1340, 1440), 4000, 4001, *range(1, 13)])
    amid = 5 * K + 4
    with (
        losing_datagrams(pair.hosts, family),
        Sink(pair.hosts.b, PORT) as sink,
        client_of(pair, family) as client,
    ):
        with pair.hosts.b.capture(f"udp dst port {PORT}") as capture:
            paced(((client, each) for each in sent[:amid]), per_second=500)
            time.sleep(1.2)  # the last block's deadline
        pieces = lone_pieces(family, bytes(capture.packets()[-1]["UDP"].payload)[-6:])
        before, received = pair.fec(), pair.b.engine()["received"]
        with pair.hosts.b.capture(PIECES[family]) as capture:
            put_on_the_wire(pair.hosts.a, pair.hosts.b, pieces)
            time.sleep(0.2)
        assert len(capture.packets()) == len(pieces)
        assert (pair.fec(), pair.b.engine()["received"]) == (before, received)
        paced(((client, each) for each in sent[amid:]), per_second=500)
    assert sorted(sink.payloads(PORT)) == sorted(sent)


@both_families
def test_fragments_of_less_than_a_whole_datagram(pair: Pair, family: int) -> None:
    """The kernel puts them together. That the datagram is shorter than it says is for others to find."""
    sent, malformed = payloads(range(1, 2 * K + 1)), pair.b.engine()["malformed"]
    with Sink(pair.hosts.b, PORT) as sink, client_of(pair, family) as client:
        with pair.hosts.b.capture(f"udp dst port {PORT}") as capture:
            paced(((client, each) for each in sent[:K]), per_second=500)
        last_id = bytes(capture.packets()[-1]["UDP"].payload)[-6:]
        packet = datagram(forged(last_id, K - 1), VERSION[socket.AddressFamily(family)], PORT)
        before = pair.fec()
        cuts = (Cut(0, 1400, True), Cut(1400, 2400, False))
        put_on_the_wire(pair.hosts.a, pair.hosts.b, (fragment(packet, 99, cut) for cut in cuts))
        eventually(lambda: pair.b.engine()["malformed"] == malformed + 1)
        assert pair.fec() == before
        paced(((client, each) for each in sent[K:]), per_second=500)
    assert sink.payloads(PORT) == sent
