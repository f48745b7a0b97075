"""conntrack sees a connection that grows on its way as it is on the wire, and finds nothing invalid in it.

In the engine's place stands a consumer in host a that inserts 4 bytes in front of the stream's first byte and
hides that from a's kernel: a pure function of the offset, so retransmissions and the order of segments do not
matter. Host b is not customized, and reads 4 bytes more.

    wire(o) = o, or o + 4 for o > 0       of the egress stream; acknowledgements are mapped back
"""

import socket
import struct
from typing import Any

import pytest

from layer45.rules.diversion import Selector

from .known_map import Connections, key_of_packet, renumbering, tcp_of
from .owned_sockets import owned_socket
from .queue_recorder import LOCAL_OUT, Seen
from .rule_plans import plan
from .test_rules_matching import ALICE, TCP, every_family
from .topology import Host, Hosts

pytestmark = pytest.mark.root

PORT = 5004
INSERTED = b"L45:"
SYN = 2


class Lengthener:
    """The consumer; knows one connection, opened from here."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.start = 0  # sequence number of the first byte

    def answer(self, seen: Seen) -> bytes | None:
        self.connections.learn(seen)
        tcp = tcp_of(seen.packet)
        sequence, acknowledged = struct.unpack_from("!II", tcp, 4)
        if seen.hook == LOCAL_OUT and tcp[13] & SYN:
            self.start = sequence + 1
        elif seen.hook == LOCAL_OUT:
            return self._grown(seen.packet, (sequence - self.start) & 0xFFFFFFFF)
        elif not tcp[13] & SYN:
            return self._hidden(seen.packet, (acknowledged - self.start) & 0xFFFFFFFF)
        return None

    def _grown(self, packet: bytes, offset: int) -> bytes:
        segment = dissected(packet)
        if offset > 0:
            segment.seq = self.start + offset + len(INSERTED)
        elif segment.payload:
            segment.payload = type(segment.payload)(INSERTED + bytes(segment.payload))
        return rebuilt(segment)

    def _hidden(self, packet: bytes, offset: int) -> bytes:
        segment = dissected(packet)
        segment.ack = self.start + max(0, offset - len(INSERTED))
        return rebuilt(segment)


def dissected(packet: bytes) -> Any:
    from scapy.layers.inet import IP
    from scapy.layers.inet import TCP as Segment
    from scapy.layers.inet6 import IPv6

    return (IP if packet[0] >> 4 == 4 else IPv6)(packet)[Segment]


def rebuilt(segment: Any) -> bytes:
    """Lengths and checksums made anew."""
    packet = segment.underlayer
    segment.chksum = None
    if packet.version == 4:
        packet.len = packet.chksum = None
    else:
        packet.plen = None
    return bytes(packet)


def dropping_invalid(host: Host) -> None:
    """What many hosts do with packets that conntrack cannot place; both ways, to count them all."""
    for tool in ("iptables", "ip6tables"):
        for hook in ("INPUT", "OUTPUT"):
            host.run([tool, "-A", hook, "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP"])


def invalid(host: Host) -> int:
    """How many they were."""
    saved = "".join(host.run([tool, "-c"]).stdout for tool in ("iptables-save", "ip6tables-save"))
    return sum(int(line[1 : line.index(":")]) for line in saved.splitlines() if "INVALID" in line)


@every_family
@pytest.mark.parametrize("where", ["raw", "mangle"])
def test_longer_segments_are_valid_to_conntrack_from_raw_only(hosts: Hosts, family: int, where: str) -> None:
    """In mangle, conntrack would see the wire's acknowledgements of bytes that it never saw leave."""
    dropping_invalid(hosts.a)
    renumbers = {1} if where == "raw" else set()
    wanted = plan(Selector(("tcp",), user=(61001,)), renumbers=renumbers)
    with renumbering(hosts.a, wanted, learns=False) as (recorder, connections):
        lengthener = Lengthener(connections)
        recorder.answer = lengthener.answer
        with (
            owned_socket(hosts.b, family, TCP, port=PORT) as server,
            owned_socket(hosts.a, family, TCP, ALICE) as one,
        ):
            server.listen()
            one.connect((hosts.b.address(family), PORT))
            other, _ = server.accept()
            with other:
                received = talk(one, other)
        recorder.counts()
    assert received[:8] == INSERTED + b"ping"
    assert hosts.b.checksum_errors() == hosts.a.checksum_errors() == {"udp4": 0, "tcp": 0, "udp6": 0}
    if where == "raw":
        assert invalid(hosts.a) == 0
        assert len({key_of_packet(seen) for seen in recorder.seen}) == 1
        assert received == INSERTED + b"ping" * 500 + b"end"
    else:
        assert invalid(hosts.a) > 0


def talk(one: socket.socket, other: socket.socket) -> bytes:
    """Both ways, and to the end where nothing is lost; what the other end read."""
    received = b""
    other.settimeout(1)
    try:
        for turn in range(500):
            one.sendall(b"ping")
            received += other.recv(64)
            other.sendall(b"pong")
            assert one.recv(64) == b"pong", turn
        one.sendall(b"end")
        one.shutdown(socket.SHUT_WR)
        while data := other.recv(64):
            received += data
    except TimeoutError:
        pass
    return received
