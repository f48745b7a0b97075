"""fec on a wire: what arrives is what was sent, in whatever lengths, with losses and broken bits on the way.

a: clients, iperf3 -c ── fec ──▶ wire ──▶ fec ── b: an echo server, a sink, iperf3 -s

Offloads are off: every checksum is checked. What all modules must hold is in test_live_datagrams.py and
test_live_mtu.py, with fec among them.
"""

import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .daemons import Daemon, Service, client_side, eventually, running, server_side
from .datagrams import both_families, connected, echo, exchange, payloads
from .one_way import Sink, keep_tables, losing, paced
from .topology import Hosts, two_hosts

pytestmark = pytest.mark.root

FEC = '{ module = "fec", unmarked = "drop" }'
BREAKING = '{ module = "impair", corrupt_percent = 5, loss_percent = 5, direction = "egress" }'
SERVICES = [
    Service("echoed", 7201, FEC),
    Service("broken", 7202, f"{FEC}, {BREAKING}", server_chain=FEC),
    Service("open", 7203, '{ module = "fec" }'),
    Service("iperf", 5201, FEC),
]
EVERY_TENTH = "--dport {} -m statistic --mode nth --every 10 --packet 6"  # at most two of a block of 13


@dataclass
class Pair:
    """Two hosts with a daemon each; an echo server and iperf3 on b."""

    hosts: Hosts
    a: Daemon
    b: Daemon

    def difference(self, daemon: Daemon, name: str, before: dict[str, int]) -> dict[str, int]:
        """What fec has counted since, without zeros."""
        after = daemon.counters(name, "fec")
        return {key: after[key] - before[key] for key in after if after[key] != before[key]}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with two_hosts() as hosts:
        for host in hosts:
            host.set_offloads(False)
            keep_tables(host)
        with (
            running(hosts.a, client_side(SERVICES)) as a,
            running(hosts.b, server_side(SERVICES)) as b,
            echo(hosts.b, 7201, 7203),
        ):
            hosts.b.popen(["iperf3", "--server"], stdout=subprocess.DEVNULL)
            eventually(lambda: hosts.b.run(["ss", "-Hln", "--tcp", "sport", "=", "5201"]).stdout, 5)
            yield Pair(hosts, a, b)


# --- lengths ----------------------------------------------------------------------------------

LONGEST = {socket.AF_INET: 65507, socket.AF_INET6: 65527}
HEADER_BYTES = {socket.AF_INET: 28, socket.AF_INET6: 48}
ID_BYTES = 6
LARGEST_PACKET_BYTES = 65531  # that the engine edits


@both_families
def test_empty_and_huge_datagrams(pair: Pair, family: int) -> None:
    """Up to the longest there are. Those without room for an id pass as they are, counted: an open policy."""
    longest = LONGEST[family]
    most = LARGEST_PACKET_BYTES - HEADER_BYTES[family] - ID_BYTES
    too_long = [most + 1, most + 6, most + 7, longest]
    lengths = [0, 1472, 9000, 60000, *range(most - 3, most + 1), *too_long]
    before, failed = pair.a.counters("open", "fec"), pair.a.engine()["failed_open"]
    with connected(pair.hosts.a, family, pair.hosts.b, 7203) as client:
        for sent in payloads(lengths):
            assert exchange(client, [sent], 1.0) == [sent]
    counted = pair.difference(pair.a, "open", before)
    assert counted["sources"] == counted["arrived"] == len(lengths) - len(too_long)
    assert counted["no_room"] == 2  # of the others the engine knows
    assert counted["unprotected"] == 3  # a repair is longer than they are
    assert pair.a.engine()["failed_open"] - failed >= len(too_long)


@both_families
def test_lost_datagrams_of_all_lengths_come_back(pair: Pair, family: int) -> None:
    """Both ways, longer ones than the MTU too: the kernel puts fragments together before it decides."""
    sent = payloads([0, 1, 2, 3, 4, 5, *range(6, 1500, 37), *range(1440, 1480), 3000, 9000, 9001, 60000] * 2)
    before = [daemon.counters("echoed", "fec") for daemon in (pair.a, pair.b)]
    with (
        losing(pair.hosts.b, family, EVERY_TENTH.format(7201)),
        losing(pair.hosts.a, family, EVERY_TENTH.format(7201).replace("dport", "sport")),
        connected(pair.hosts.a, family, pair.hosts.b, 7201) as client,
    ):
        received = exchange(client, sent)
    assert sorted(received) == sorted(sent)
    for daemon, each in zip((pair.a, pair.b), before, strict=True):
        assert pair.difference(daemon, "echoed", each)["recovered"] > len(sent) // 20


# --- losses and broken bits -------------------------------------------------------------------


@both_families
def test_nothing_broken_is_delivered(pair: Pair, family: int) -> None:
    """5 % lost and 5 % with a flipped bit, the checksum as it was: worth a loss of 10 %, and no more."""
    sent = payloads([at * 7 % 1400 + 8 for at in range(3000)])
    before, errors = pair.b.counters("broken", "fec"), pair.hosts.b.checksum_errors()
    with (
        Sink(pair.hosts.b, 7202) as sink,
        connected(pair.hosts.a, family, pair.hosts.b, 7202) as client,
    ):
        paced(((client, each) for each in sent), per_second=3000)
    received = sink.payloads(7202)
    assert len(set(received)) == len(received)
    assert set(received) <= set(sent)
    counted = pair.difference(pair.b, "broken", before)
    after = pair.hosts.b.checksum_errors()
    dropped = sum(after.values()) - sum(errors.values())
    print(f"{len(received)} of {len(sent)}; {counted}; the kernel dropped {dropped}")
    assert counted["corrupt"] > 100 and counted["recovered"] > 150
    assert 0 < dropped <= counted["corrupt"] + counted.get("unmarked", 0)
    assert len(received) > 0.95 * len(sent)


def _iperf(pair: Pair, family: int, *words: str) -> dict[str, Any]:
    argv = ["iperf3", "--json", "--udp", "-c", pair.hosts.b.address(family), *words]
    done = json.loads(pair.hosts.a.run(argv, timeout=30).stdout)
    assert "error" not in done, done["error"]
    return dict(done["end"]["sum"])


@both_families
@pytest.mark.parametrize("way", [[], ["-R"]], ids=["there", "back"])
def test_iperf3_loses_nothing(pair: Pair, family: int, way: list[str]) -> None:
    done = _iperf(pair, family, "-b", "8M", "-l", "1200", "-t", "1", *way)
    assert done["lost_packets"] == 0 and done["packets"] > 500


@both_families
def test_iperf3_over_losses(pair: Pair, family: int) -> None:
    """Every tenth packet is lost, repairs too: two of a block at most, and so none in the end. But iperf3
    closes its books with the last datagram: up to two of the last block may come too late for them."""
    before = pair.b.counters("iperf", "fec")
    with losing(pair.hosts.b, family, EVERY_TENTH.format(5201)):
        done = _iperf(pair, family, "-b", "8M", "-l", "1200", "-t", "1")
    assert done["lost_packets"] <= 2 and done["packets"] > 500
    counted = pair.difference(pair.b, "iperf", before)
    assert counted["recovered"] > 50 and "unrecovered" not in counted


@both_families
def test_one_megabit_a_second_at_most_doubles(pair: Pair, family: int) -> None:
    """What is on the wire, of payload and of IP packets, by what iperf3 has sent."""
    with pair.hosts.b.capture("udp dst port 5201") as capture:
        done = _iperf(pair, family, "-b", "1M", "-l", "1200", "-t", "2")
    source = done["bytes"]
    packets = capture.packets()
    payload = sum(len(packet["UDP"].payload) for packet in packets) / source
    whole = sum(len(packet) for packet in packets) / (source * (1200 + HEADER_BYTES[family] + 14) / 1200)
    print(f"{source} bytes: {payload:.4f} of payload, {whole:.4f} of frames")
    assert done["lost_packets"] == 0
    assert 1.5 < payload <= 2.05 and whole <= 2.05
