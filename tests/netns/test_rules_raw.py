"""Connections of a renumbering policy come to the queue whole, and no other connection ever does.

Host a has the rules, and a recorder that tells the map of each connection it sees; host b is somebody else.
"""

import contextlib
import socket
import struct
import time

import pytest

from layer45.rules.diversion import RulePlan, Selector

from .known_map import (
    PORT,
    change,
    connected,
    exchange,
    key_of_packet,
    key_of_socket,
    renumbering,
    tcp_of,
    without_trace,
)
from .queue_recorder import LOCAL_OUT, Recorder
from .rule_plans import plan
from .test_rules_matching import ALICE, BOB, every_family, tagging
from .topology import Hosts

pytestmark = pytest.mark.root

OF_ALICE = Selector(("tcp",), user=(61001,))
FIN, SYN, RST, ACK = 1, 2, 4, 16


def flags(recorder: Recorder, hook: int) -> list[int]:
    """The TCP flags of packets queued in a hook, but PSH."""
    return [tcp_of(seen.packet)[13] & 0x17 for seen in recorder.seen if seen.hook == hook]


@every_family
def test_a_client_is_queued_whole_and_others_are_not(hosts: Hosts, family: int) -> None:
    with (
        without_trace(hosts.a),
        hosts.a.capture("tcp") as capture,
        renumbering(hosts.a, plan(OF_ALICE, renumbers={1})) as (recorder, _),
    ):
        with connected(hosts.a, hosts.b, family, BOB) as (one, other):
            exchange(one, other)
        assert recorder.counts() == {}
        with connected(hosts.a, hosts.b, family, ALICE) as (one, other):
            port = one.getsockname()[1]
            exchange(one, other)
        recorder.counts()
    wire = [packet["TCP"] for packet in capture.packets() if port in (packet.sport, packet.dport)]
    assert len(wire) == len(recorder.seen) >= 9
    assert {key_of_packet(seen) for seen in recorder.seen} == {key_of_packet(recorder.seen[0])}
    assert flags(recorder, LOCAL_OUT)[0] == SYN


@every_family
def test_a_servers_first_answer_is_queued(hosts: Hosts, family: int) -> None:
    """A half-open connection has no socket yet that a rule could ask for its owner."""
    wanted = plan(OF_ALICE, renumbers={1})
    with renumbering(hosts.a, wanted) as (recorder, connections), tagging(hosts, wanted):
        with connected(hosts.b, hosts.a, family, server_owner=BOB) as (one, other):
            exchange(one, other)
        assert recorder.counts() == {}
        with connected(hosts.b, hosts.a, family, server_owner=ALICE) as (one, other):
            exchange(one, other)
            assert list(connections.all()) == [key_of_socket(other)]
        recorder.counts()
    assert flags(recorder, 1)[:2] == [SYN, ACK]
    assert flags(recorder, LOCAL_OUT)[:2] == [SYN | ACK, ACK]


@every_family
def test_what_an_orphan_sends_is_queued(hosts: Hosts, family: int) -> None:
    """Much data, then close: most of it leaves when the socket belongs to nobody any more."""
    with (
        renumbering(hosts.a, plan(OF_ALICE, renumbers={1})) as (recorder, _),
        hosts.a.capture("tcp") as capture,
    ):
        with connected(hosts.a, hosts.b, family, ALICE) as (one, other):
            sent = fill(one)
            one.close()
            before = len(recorder.seen)
            time.sleep(0.1)
            received = drain(other)
        recorder.counts()
    assert received == sent
    assert len(recorder.seen) - before > 10
    here = {hosts.a.address(family)}
    out = sum(
        len(tcp_of(s.packet)) - (tcp_of(s.packet)[12] >> 4) * 4 for s in recorder.seen if s.hook == LOCAL_OUT
    )
    assert out >= sent
    wire = [p for p in capture.packets() if {getattr(p.payload, "src", None)} == here]
    assert sum(len(p["TCP"].payload) for p in wire) == out


def fill(one: socket.socket) -> int:
    """Sends until there is no room left; how many bytes."""
    sent = 0
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += one.send(bytes(60000))
    return sent


def drain(other: socket.socket) -> int:
    """Reads to the end; how many bytes."""
    got = 0
    while data := other.recv(1 << 16):
        got += len(data)
    return got


def segment(hosts: Hosts, family: int, client_port: int, seq: int, ack: int, bits: int) -> None:
    """From b to a, beside all sockets."""
    from scapy.layers.inet import IP
    from scapy.layers.inet import TCP as Segment
    from scapy.layers.inet6 import IPv6

    a, b = hosts.a.address(family), hosts.b.address(family)
    head = IP(src=b, dst=a) if family == socket.AF_INET else IPv6(src=b, dst=a)
    made = bytes(head / Segment(sport=PORT, dport=client_port, seq=seq, ack=ack, flags=bits))
    with hosts.b.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(made, (a, 0))


@every_family
def test_time_wait_and_resets_are_queued(hosts: Hosts, family: int) -> None:
    with renumbering(hosts.a, plan(OF_ALICE, renumbers={1})) as (recorder, _):
        with connected(hosts.a, hosts.b, family, ALICE) as (one, other):
            port = one.getsockname()[1]
            one.close()  # first, and so it is the one that waits
            assert other.recv(9) == b""
        recorder.counts()
        last = [tcp_of(s.packet) for s in recorder.seen if s.hook == 1][-1]
        seq, ack = struct.unpack_from("!II", last, 4)
        assert last[13] & FIN
        quiet = len(flags(recorder, LOCAL_OUT))
        segment(hosts, family, port, seq, ack, FIN | ACK)  # its last ACK was lost, b would say
        recorder.counts()
        assert flags(recorder, LOCAL_OUT)[quiet:] == [ACK]
        segment(hosts, family, port, seq + 1, ack, RST)
        segment(hosts, family, port, seq + 1, ack, ACK)  # to a connection that is no more
        recorder.counts()
        assert flags(recorder, LOCAL_OUT)[quiet + 1 :] == [RST]


@every_family
def test_a_connection_the_engine_does_not_know_is_left_alone(hosts: Hosts, family: int) -> None:
    with renumbering(hosts.a, plan(OF_ALICE, renumbers={1}), learns=False) as (recorder, _):
        with connected(hosts.a, hosts.b, family, ALICE) as (one, other):
            exchange(one, other)
        assert recorder.counts() == {"out 0x1": 1}


@every_family
def test_first_match_wins_among_all_tcp_policies(hosts: Hosts, family: int) -> None:
    wanted = plan(
        (
            Selector(("tcp",), user=(61001, 61002)),
            Selector(user=(61002,)),
        ),  # its packets leave the raw chains
        Selector(("tcp",), remote_port=((PORT, PORT),)),
        renumbers={2},
    )
    with renumbering(hosts.a, wanted, learns=False) as (recorder, connections):
        recorder.answer = lambda seen: connections.learn(seen) if seen.mark & 0x2 else None
        with connected(hosts.a, hosts.b, family, ALICE) as (one, other):
            exchange(one, other)
        assert set(recorder.counts()) == {"out 0x1", "in 0x1"}
        assert connections.all() == {}
        with connected(hosts.a, hosts.b, family, BOB) as (one, other):
            exchange(one, other)
        assert set(recorder.counts()) == {"out 0x1", "in 0x1", "out 0x2", "in 0x2"}


@every_family
def test_draining_class_keeps_its_connections_and_gets_no_new_ones(hosts: Hosts, family: int) -> None:
    wanted = plan(OF_ALICE, renumbers={1})
    (alone,) = wanted.diversions
    drained = RulePlan(wanted.owner, wanted.marks, (type(alone)("p1", 1, None, None, alone.queues, True),))
    with renumbering(hosts.a, wanted) as (recorder, connections):
        with connected(hosts.a, hosts.b, family, ALICE) as (one, other):
            change(hosts.a, drained, connections)
            before = len(recorder.seen)
            exchange(one, other)
            recorder.counts()
            assert len(recorder.seen) > before
        recorder.counts()
        before = len(recorder.seen)
        with connected(hosts.a, hosts.b, family, ALICE) as (one, other):
            exchange(one, other)
        recorder.counts()
        assert len(recorder.seen) == before


@every_family
@pytest.mark.parametrize("workers", [2])
def test_both_directions_of_a_connection_meet_in_one_worker(hosts: Hosts, family: int, workers: int) -> None:
    used = set()
    with renumbering(hosts.a, plan(OF_ALICE, renumbers={1}, workers=workers)) as (recorder, connections):
        for customized in (False, True) * 5:
            with connected(hosts.a, hosts.b, family, ALICE) as (one, other):
                connections.add(key_of_socket(one), 1, customized)
                before = len(recorder.seen)
                exchange(one, other)
                recorder.counts()
                queues = {seen.queue for seen in recorder.seen[before:]}
                assert len(queues) == 1
                used |= queues
    assert len(used) == workers
