"""Renumbering policies in a host, and in the engine's place a recorder that tells the map what it sees."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from layer45.rules import backend, bpf, known, pins
from layer45.rules.diversion import RulePlan
from layer45.rules.known_program import CUSTOMIZED, KEY_BYTES, VALUE_BYTES
from layer45.rules.mounts import mounted

from .owned_sockets import Owner, owned_socket
from .queue_recorder import LOCAL_OUT, Recorder, Seen, recording
from .rule_plans import FIRST_QUEUE, MARKS
from .topology import NAMESPACES, Host

PORT = 5004
IP_OFFSETS = {4: (12, 16, 20), 6: (8, 24, 40)}  # of addresses; end of a header without options


def packed(address: str) -> bytes:
    """An address as keys have it: 16 bytes, IPv4 as ::ffff:a.b.c.d."""
    parsed = ip_address(address)
    return parsed.packed if isinstance(parsed, IPv6Address) else bytes(10) + b"\xff\xff" + parsed.packed


def key_of(local: str, local_port: int, remote: str, remote_port: int) -> bytes:
    """The key of a connection, as the engine writes it."""
    return packed(local) + packed(remote) + struct.pack("!HH", local_port, remote_port)


def key_of_socket(connected: socket.socket) -> bytes:
    """The same, for a connected socket."""
    return key_of(*connected.getsockname()[:2], *connected.getpeername()[:2])


def tcp_of(packet: bytes) -> bytes:
    """Everything from the TCP header on."""
    return packet[(packet[0] & 15) * 4 :] if packet[0] >> 4 == 4 else packet[40:]


def key_of_packet(seen: Seen) -> bytes:
    """The key of the connection that a queued packet is of."""
    source, destination, end = IP_OFFSETS[seen.packet[0] >> 4]
    addresses = [seen.packet[source:destination], seen.packet[destination:end]]
    ports = [tcp_of(seen.packet)[:2], tcp_of(seen.packet)[2:4]]
    if seen.hook != LOCAL_OUT:
        addresses, ports = addresses[::-1], ports[::-1]
    full = [address if len(address) == 16 else bytes(10) + b"\xff\xff" + address for address in addresses]
    return b"".join((*full, *ports))


class Connections(known.KnownConnections):
    """The map, and what an engine does with it."""

    descriptor = -1

    def add(self, key: bytes, class_id: int, customized: bool = False) -> None:
        """As known_add and known_customize."""
        value = class_id | (CUSTOMIZED if customized else 0)
        bpf.update(self.descriptor, key, struct.pack("=I", value))

    def all(self) -> dict[bytes, int]:
        """Every key with its value."""
        return {
            key: struct.unpack("=I", value)[0]
            for key, value in bpf.entries(self.descriptor, KEY_BYTES, VALUE_BYTES)
        }

    def learn(self, seen: Seen) -> None:
        """What the engine does with a packet of a connection it does not know."""
        if self.descriptor >= 0 and key_of_packet(seen) not in self.all():
            self.add(key_of_packet(seen), seen.mark & MARKS.class_mask)


@contextlib.contextmanager
def renumbering(host: Host, wanted: RulePlan, learns: bool = True) -> Iterator[tuple[Recorder, Connections]]:
    """The plan's rules and map in the host, the recorder on its queues; all gone at the end."""
    workers = max(d.queues.workers for d in wanted.diversions)
    connections = Connections()
    queues = range(FIRST_QUEUE, FIRST_QUEUE + workers)
    with recording(host, queues) as recorder, installed(host, wanted, connections):
        if learns:
            recorder.answer = connections.learn
        yield recorder, connections


@contextlib.contextmanager
def installed(host: Host, wanted: RulePlan, connections: Connections) -> Iterator[None]:
    """The plan's rules and map alone; nobody reads the queues."""
    try:
        with host.entered():
            connections.descriptor = connections.prepare(wanted)
            backend.install(wanted, "iptables")
        yield
    finally:
        with host.entered():
            backend.remove(wanted.owner)
        connections.close()


def change(host: Host, wanted: RulePlan, connections: Connections) -> None:
    """A reload."""
    with host.entered():
        connections.prepare(wanted)
        backend.install(wanted, "iptables")
        connections.settle(wanted)


@contextlib.contextmanager
def connected(
    client: Host,
    server: Host,
    family: int,
    client_owner: Owner | None = None,
    server_owner: Owner | None = None,
    port: int = PORT,
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a new connection."""
    with (
        owned_socket(server, family, socket.SOCK_STREAM, server_owner, port) as listener,
        owned_socket(client, family, socket.SOCK_STREAM, client_owner) as one,
    ):
        listener.listen()
        one.connect((server.address(family), port))
        other, _ = listener.accept()
        other.settimeout(2)
        with other:
            yield one, other


def exchange(one: socket.socket, other: socket.socket) -> None:
    """A few bytes each way."""
    one.sendall(b"ask")
    assert other.recv(9) == b"ask"
    other.sendall(b"answer")
    assert one.recv(9) == b"answer"


@contextlib.contextmanager
def without_trace(host: Host) -> Iterator[None]:
    """AssertionError if names or mounts of the owners of tests are left in the host when it ends."""
    yield
    assert _traces(host) == []


def _traces(host: Host) -> list[str]:
    number = (NAMESPACES / host.name).stat().st_ino
    ours = [f"{owner}_{number}" for owner in ("test", "second")]
    places = [*mounted("bpf"), *pins.RUNTIME.glob("bpf_*"), *Path("/sys/fs/bpf").glob("layer45_*")]
    return [str(place) for place in places if place.name.endswith(tuple(ours))]
