"""Invariants 1 to 3 and 6 on a wire: what a program sends over UDP arrives as it was, once, by any chain.

a: client ── chain ──▶ wire ──▶ chain ── b: echo server, and back

Offloads are off: every checksum is checked.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
from .datagrams import FAMILIES, LONGEST, connected, echo, exchange, payload, payloads
from .topology import Hosts, two_hosts

pytestmark = pytest.mark.root

KEY = 'key = "sixteen bytes it is"'
DROP_NOTHING = '{ module = "drop", length = "65535" }'
SEQUENCE = f'{{ module = "scramble", {KEY}, nonce = "sequence" }}'
TAG = '{ module = "tag", id = "host-7", unmarked = "drop" }'
FRONT = '{ module = "tag", id = "x", position = "front", unmarked = "drop" }'
FEC = '{ module = "fec", unmarked = "drop" }'
TWICE = '{ module = "duplicate", unmarked = "drop" }'
CHAINS = {
    "empty": "",
    "tag_back": TAG,
    "tag_front": '{ module = "tag", id = "host-7", position = "front", unmarked = "drop" }',
    "drop_nothing": DROP_NOTHING,
    "scramble_content": f'{{ module = "scramble", {KEY} }}',
    "scramble_sequence": f"{SEQUENCE}, {TAG}",
    "duplicate": '{ module = "duplicate", copies = 3, unmarked = "drop" }',
    "duplicate_spaced": '{ module = "duplicate", copies = 3, spacing_ms = 4, unmarked = "drop" }',
    "fec": FEC,
    "fec_interleaved": '{ module = "fec", source_symbols = 4, interleave = 3, unmarked = "drop" }',
    "fec_among_others": f"{FRONT}, {FEC}, {SEQUENCE}, {TAG}, {TWICE}",
    "python": '{ module = "example_python" }',
    "all": f'{{ module = "example_python" }}, {DROP_NOTHING}, {SEQUENCE}, {TAG}, '
    f'{{ module = "scramble", {KEY} }}, {{ module = "tag", id = "x", position = "front" }}, '
    '{ module = "duplicate", unmarked = "drop" }',
}
SERVICES = [Service(name, 7001 + at, chain) for at, (name, chain) in enumerate(CHAINS.items())]
PORT = {service.name: service.port for service in SERVICES}
COUNTED = [name for name in CHAINS if not name.startswith("fec")]


@dataclass
class Pair:
    """Two hosts with a daemon each, and an echo server on b."""

    hosts: Hosts
    a: Daemon
    b: Daemon


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """One life of two daemons for all tests of this file."""
    with two_hosts() as hosts:
        for host in hosts:
            host.set_offloads(False)
        with (
            running(hosts.a, client_side(SERVICES)) as a,
            running(hosts.b, server_side(SERVICES)) as b,
            echo(hosts.b, *PORT.values()),
        ):
            yield Pair(hosts, a, b)


def _exchange(pair: Pair, family: int, name: str, sent: list[bytes]) -> None:
    with connected(pair.hosts.a, family, pair.hosts.b, PORT[name]) as client:
        received = exchange(client, sent)
    assert len(received) == len(sent)
    assert sorted(received) == sorted(sent)


def _arrive(pair: Pair, family: int, name: str, sent: list[bytes]) -> None:
    _exchange(pair, family, name, sent)
    for daemon in (pair.a, pair.b):
        assert_balanced(daemon.stats())
    assert_no_checksum_errors(*pair.hosts)


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("name", [name for name in CHAINS if name != "all"])
def test_every_module_gives_back_what_was_sent(pair: Pair, name: str, family: int) -> None:
    """Lengths around each border, and steps between; long ones need fragments."""
    longest = LONGEST[family]
    lengths = [
        *range(40),
        *range(40, longest - 60, 31),
        *range(longest - 60, longest + 3),
        2960,
        8000,
        60000,
    ]
    _arrive(pair, family, name, payloads(lengths))


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_a_chain_of_all_modules_gives_back_every_length(pair: Pair, family: int) -> None:
    """0 to the MTU without a gap, and beyond."""
    lengths = [*range(LONGEST[family] + 40), 2000, 2960, 2961, 8000, 30000, 60000]
    _arrive(pair, family, "all", payloads(lengths))


def test_every_packet_was_counted_where_it_belongs(pair: Pair) -> None:
    """What one side sent through a chain, the other got through it; no tag missing, no copy too many. (How
    many repairs there are depends on the time.)"""
    for name in COUNTED:
        _exchange(pair, FAMILIES[0], name, payloads(range(20, 30)))
    sent, received = pair.a.stats()["policies"], pair.b.stats()["policies"]
    for name in COUNTED:
        here, there = sent[name], received[name]
        copies = {"duplicate": 3, "duplicate_spaced": 3, "all": 2}.get(name, 1)
        assert here["egress_packets"] > 0
        assert there["ingress_packets"] == here["egress_packets"] * copies
        assert there["egress_packets"] == here["egress_packets"]
        assert here["ingress_packets"] == there["egress_packets"] * copies
        for instance in (*here["instances"], *there["instances"]):
            counters = instance["counters"]
            bad = ("unmarked", "bad_version", "no_room", "too_old", "undecodable", "not_copied", "truncated")
            assert not {key: counters[key] for key in bad if counters.get(key)}, (name, instance)


def test_memory_is_bounded_by_flows(pair: Pair) -> None:
    """Packets that modules own and timers are gone when the traffic is."""
    _exchange(pair, FAMILIES[0], "duplicate_spaced", payloads(range(20, 30)))
    for daemon in (pair.a, pair.b):
        for queue in daemon.ask("status")["queues"]:
            assert queue["live_owned"] == 0 and queue["live_timers"] == 0
        engine = daemon.engine()
        assert engine["clones"] == engine["clones_ended"] > 0 and engine["held"] == 0


# --- on the wire --------------------------------------------------------------------------------


def _on_wire(pair: Pair, family: int, name: str, sent: list[bytes]) -> list[bytes]:
    """UDP payloads of whole datagrams from a to b as the wire carries them, in order."""
    port = PORT[name]
    with pair.hosts.b.capture(f"udp dst port {port}") as capture:
        _exchange(pair, family, name, sent)
    return [_udp(packet) for packet in capture.packets()]


def _udp(packet: Any) -> bytes:
    from scapy.layers.inet import UDP

    datagram = packet[UDP]
    assert datagram.len == 8 + len(bytes(datagram.payload))
    assert _checksum_holds(packet)
    return bytes(datagram.payload)


def _checksum_holds(packet: Any) -> bool:
    from scapy.layers.inet import IP, UDP

    claimed = packet[UDP].chksum
    again = packet.copy()
    for layer in (IP, UDP):
        if again.haslayer(layer):
            del again[layer].chksum
    return claimed == type(packet)(bytes(again))[UDP].chksum


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
class TestWire:
    """tcpdump on b's side of the wire."""

    sent = payloads(range(60, 100))

    def test_empty_chain_and_drop_leave_it_as_it_is(self, pair: Pair, family: int) -> None:
        assert _on_wire(pair, family, "empty", self.sent) == self.sent
        assert _on_wire(pair, family, "drop_nothing", self.sent) == self.sent

    def test_tag_stands_behind_or_in_front(self, pair: Pair, family: int) -> None:
        for serial, (each, wire) in enumerate(
            zip(self.sent, _on_wire(pair, family, "tag_back", self.sent), strict=True)
        ):
            assert wire[: len(each)] == each and wire[len(each) :][:10] == b"host-7LT\x01\x06"
            assert wire[-4:] == serial.to_bytes(4, "big")
        for each, wire in zip(self.sent, _on_wire(pair, family, "tag_front", self.sent), strict=True):
            assert wire[18:] == each and wire[:4] == b"LT\x01\x06" and wire[12:18] == b"host-7"

    def test_scramble_hides_it_and_keeps_the_length(self, pair: Pair, family: int) -> None:
        for name, grown in (("scramble_content", 0), ("scramble_sequence", 18)):
            for each, wire in zip(self.sent, _on_wire(pair, family, name, self.sent), strict=True):
                assert len(wire) == len(each) + grown
                assert not any(each[at : at + 8] in wire for at in range(len(each) - 8))

    def test_duplicate_sends_it_three_times(self, pair: Pair, family: int) -> None:
        for name in ("duplicate", "duplicate_spaced"):
            wire = _on_wire(pair, family, name, self.sent)
            assert sorted(each[:-16] for each in wire) == sorted(self.sent * 3)
            assert sorted(each[-16:-12] for each in wire) == sorted(
                b"LD\x01" + bytes([copy]) for copy in (0, 1, 2) for _ in self.sent
            )

    def test_python_compresses_what_can_be(self, pair: Pair, family: int) -> None:
        sent = [payload(length, length) for length in range(400, 440)]
        for each, wire in zip(sent, _on_wire(pair, family, "python", sent), strict=True):
            assert wire == b"\0" + each if len(each) % 2 else wire[:1] == b"\1" and len(wire) < 80


def test_spaced_copies_are_apart(pair: Pair) -> None:
    """spacing_ms = 4: three copies, 4 ms from one to the next, measured on the wire.

    A thread that wakes late makes one gap longer and the next one shorter: medians tell.
    """
    port, sent = PORT["duplicate_spaced"], [b"alone %d" % number for number in range(9)]
    with pair.hosts.b.capture(f"udp dst port {port}") as capture:
        for each in sent:
            _exchange(pair, FAMILIES[0], "duplicate_spaced", [each])
    times: dict[bytes, list[float]] = {each: [] for each in sent}
    for packet in capture.packets():
        times[bytes(packet["UDP"].payload)[:-16]].append(float(packet.time))
    assert {len(each) for each in times.values()} == {3}
    for copy in (0, 1):
        gap = statistics.median(each[copy + 1] - each[copy] for each in times.values())
        assert 0.0035 < gap < 0.05


def test_fragments_and_offloads(pair: Pair) -> None:
    """With checksums left to the device, as a program's packets usually come, nothing is different."""
    for host in pair.hosts:
        host.set_offloads(True)
    try:
        for family in FAMILIES:
            for name in ("all", "duplicate", "scramble_content", "tag_front"):
                _arrive(
                    pair, family, name, payloads([0, 1, 2, 3, 100, 101, LONGEST[family], 1473, 8000, 60001])
                )
    finally:
        for host in pair.hosts:
            host.set_offloads(False)
