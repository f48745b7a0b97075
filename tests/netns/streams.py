"""TCP streams between two hosts behind firewalls: what tests of the stream modules share.

    with streams(hosts, [tcp("web", 8080, TAG)]) as (a, b):
        with connection(hosts, AF_INET, 8080) as (client, server):
            assert transfer(client, server, noise(1 << 20)) == noise(1 << 20)

Both hosts drop what conntrack finds invalid. At the end of the context nothing has been, no checksum was
wrong, and every packet had its verdict.
"""

import contextlib
import errno
import itertools
import random
import socket
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from layer45.control_client import ask
from layer45.control_messages import Flows, Stats

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
from .topology import Host, Hosts

TAG = '{ module = "stream_tag", id = "host-7" }'
TAG_BYTES, EVERY_BYTES = 32, 1000  # its defaults
LIMIT_S = 20.0  # no test's single step may take longer
FIREWALL = "-m conntrack --ctstate INVALID -j DROP"
TOOLS = ("iptables", "ip6tables")


def raise_firewall(host: Host) -> None:
    """Drops what conntrack finds invalid, coming and leaving, in both families."""
    for tool in TOOLS:
        for hook in ("INPUT", "OUTPUT"):
            host.run([tool, "-A", hook, *FIREWALL.split()])


def invalid_packets(host: Host) -> int:
    """How many packets the firewall has dropped."""
    saved = "".join(host.run([f"{tool}-save", "-c", "-t", "filter"]).stdout for tool in TOOLS)
    rows = [line for line in saved.splitlines() if "--ctstate INVALID" in line]
    assert len(rows) == 4
    return sum(int(row[1:].split(":")[0]) for row in rows)


@contextlib.contextmanager
def loss(host: Host, percent: float) -> Iterator[None]:
    """So many of the packets that come from the wire never come."""
    rule = [
        "PREROUTING",
        *["-p", "tcp", "-m", "statistic", "--mode", "random", "-j", "DROP", "--probability"],
        f"{percent / 100}",
    ]
    for tool in ("iptables", "ip6tables"):
        host.run([tool, "-t", "raw", "-I", *rule])
    yield
    for tool in ("iptables", "ip6tables"):
        host.run([tool, "-t", "raw", "-D", *rule])


def have_raw_table(host: Host) -> None:
    """What `loss` would leave behind: for a daemon's end to find it as its beginning did."""
    with loss(host, 1):
        pass


def assert_nobody_noticed(hosts: Hosts) -> None:
    """AssertionError when a firewall dropped something, or a kernel found a wrong checksum."""
    assert [invalid_packets(host) for host in hosts] == [0, 0]
    assert_no_checksum_errors(*hosts)


def tcp(name: str, port: int, chain: str, server_chain: str | None = None) -> Service:
    """A service whose connections a chain customizes."""
    return Service(name, port, chain, protocol="tcp", server_chain=server_chain)


@contextlib.contextmanager
def streams(
    hosts: Hosts,
    here: Sequence[Service],
    there: Sequence[Service] | None = None,
    settings: str = "",
    faults: Collection[str] = (),
) -> Iterator[tuple[Daemon, Daemon]]:
    """Firewalls up, a's daemon for the clients and b's for the servers; all is looked at in the end.

    there: the services of b's daemon, where they are not those of a's. faults: see assert_balanced.
    """
    for host in hosts:
        raise_firewall(host)
    with (
        running(hosts.a, client_side(here), settings) as a,
        running(hosts.b, server_side(here if there is None else there), settings) as b,
    ):
        yield a, b
        for daemon in (a, b):
            assert_balanced(stats(daemon), faults)
            assert engine(daemon)["segments_lost"] == engine(daemon)["known_errors"] == 0
        assert_nobody_noticed(hosts)


@dataclass(frozen=True)
class Road:
    """Two hosts with their daemons."""

    hosts: Hosts
    a: Daemon
    b: Daemon

    @property
    def daemons(self) -> tuple[Daemon, Daemon]:
        """a's and b's."""
        return self.a, self.b


@contextlib.contextmanager
def counted(*daemons: Daemon) -> Iterator[list[Counter[str]]]:
    """What each daemon counts while the context lasts, to be read behind it.

    The engine's counters, and those of the first instance of each policy's chain as "policy.counter".
    """
    found: list[Counter[str]] = [Counter() for _ in daemons]
    before = [_all_counters(daemon) for daemon in daemons]
    yield found
    for at, daemon in enumerate(daemons):
        found[at].update(_all_counters(daemon))
        found[at].subtract(before[at])


def _all_counters(daemon: Daemon) -> Counter[str]:
    now = stats(daemon)
    found = Counter(now["engine"])
    for name, policy in now["policies"].items():
        first = policy["instances"][0]["counters"]
        found.update({f"{name}.{counter}": value for counter, value in first.items()})
    return found


def stats(daemon: Daemon) -> dict[str, Any]:
    """As `layer45 stats`, which takes a process and so most of a second."""
    return dict(ask(daemon.socket, Stats(), daemon.directory))


def engine(daemon: Daemon) -> dict[str, int]:
    """The engine's counters."""
    return dict(stats(daemon)["engine"])


def counters(daemon: Daemon, policy: str, module: str = "stream_tag") -> dict[str, int]:
    """Those of the first instance of a module in a policy's chain."""
    instances = stats(daemon)["policies"][policy]["instances"]
    return dict(next(each["counters"] for each in instances if each["module"] == module))


def flows(daemon: Daemon) -> list[dict[str, Any]]:
    """As `layer45 flows`."""
    return list(ask(daemon.socket, Flows(), daemon.directory))


def customized(daemon: Daemon) -> int:
    """Connections whose peer runs the chain, so far."""
    return engine(daemon)["connections_customized"]


def listens(host: Host, port: int) -> None:
    """Waits until a server does."""
    eventually(lambda: host.run(["ss", "-Hltn", "sport", "=", str(port)]).stdout, 5)


# --- sockets of this process --------------------------------------------------------------------------------


def noise(count: int, seed: int = 0) -> bytes:
    """Bytes that repeat nowhere, the same for the same seed."""
    return random.Random(seed).randbytes(count)


def listener(host: Host, family: int, port: int, backlog: int = 128) -> socket.socket:
    """A socket that waits for connections to a port of the host."""
    waiting = host.socket(family, socket.SOCK_STREAM)
    waiting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    waiting.bind((host.address(family), port))
    waiting.listen(backlog)
    waiting.settimeout(LIMIT_S)
    return waiting


def dial(host: Host, peer: Host, family: int, port: int, local_port: int = 0) -> socket.socket:
    """A connection of the host's to a port of the peer's."""
    client = host.socket(family, socket.SOCK_STREAM)
    try:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.settimeout(LIMIT_S)
        client.bind((host.address(family), local_port))
        client.connect((peer.address(family), port))
    except BaseException:
        client.close()
        raise
    return client


@contextlib.contextmanager
def connection(
    hosts: Hosts, family: int, port: int, local_port: int = 0
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection from a to b."""
    with listener(hosts.b, family, port) as waiting:
        client = dial(hosts.a, hosts.b, family, port, local_port)
        server = waiting.accept()[0]
    with client, server:
        server.settimeout(LIMIT_S)
        yield client, server


@contextlib.contextmanager
def _unchecked(host: Host, port: int) -> Iterator[None]:
    """The firewall lets all that has this port by, at either end.

    A SYN that waits in a queue has passed conntrack before the stack answers it. When the other end's
    SYN/ACK passes in between, conntrack (not TCP) finds the answer invalid, whoever reads the queue.
    """
    rule = ["-p", "tcp", "-m", "multiport", "--ports", str(port), "-j", "ACCEPT"]
    for tool, hook in itertools.product(TOOLS, ("INPUT", "OUTPUT")):
        host.run([tool, "-I", hook, *rule])
    yield
    for tool, hook in itertools.product(TOOLS, ("INPUT", "OUTPUT")):
        host.run([tool, "-D", hook, *rule])


@contextlib.contextmanager
def crossing(hosts: Hosts, family: int, port: int) -> Iterator[list[socket.socket]]:
    """Two sockets, not blocking, that connect to each other at the same time; port: b's."""
    ports, peers = (50_100, port), (hosts.b, hosts.a)
    with contextlib.ExitStack() as stack:
        for host in hosts:
            stack.enter_context(_unchecked(host, port))
        ends = [stack.enter_context(host.socket(family, socket.SOCK_STREAM)) for host in hosts]
        with loss(hosts.a, 100), loss(hosts.b, 100):
            for end, host, local in zip(ends, hosts, ports, strict=True):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                end.bind((host.address(family), local))
                end.setblocking(False)
            for end, peer, remote in zip(ends, peers, ports[::-1], strict=True):
                assert end.connect_ex((peer.address(family), remote)) == errno.EINPROGRESS
        yield ends


def received(end: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer when the stream ends."""
    into = bytearray(count)
    at = 0
    while at < count:
        got = end.recv_into(memoryview(into)[at:])
        if got == 0:
            break
        at += got
    return bytes(into[:at])


def transfer(sender: socket.socket, receiver: socket.socket, content: bytes) -> bytes:
    """What arrives of the content."""
    return transfers([(sender, receiver, content)])[0]


def transfers(ways: Sequence[tuple[socket.socket, socket.socket, bytes]]) -> list[bytes]:
    """Several at once, in as many threads as there are ways."""
    results = [b""] * len(ways)

    def receive(at: int) -> None:
        with contextlib.suppress(TimeoutError):
            results[at] = received(ways[at][1], len(ways[at][2]))

    senders = [threading.Thread(target=sender.sendall, args=(content,)) for sender, _, content in ways]
    receivers = [threading.Thread(target=receive, args=(at,)) for at in range(len(ways))]
    for thread in (*senders, *receivers):
        thread.start()
    for thread in (*senders, *receivers):
        thread.join()
    return results


def both_ways(hosts: Hosts, family: int, port: int, count: int) -> None:
    """So much noise both ways at once in one connection; AssertionError when it arrives otherwise."""
    content = noise(count)
    with connection(hosts, family, port) as (client, server):
        assert transfers([(client, server, content), (server, client, content)]) == [content, content]


def small_talk(hosts: Hosts, family: int, port: int, lengths: Sequence[int]) -> None:
    """Questions of these lengths, each with an answer as long; AssertionError when one arrives otherwise."""
    with connection(hosts, family, port) as (client, server):
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for serial, length in enumerate(lengths):
            content = noise(length, serial)
            client.sendall(content)
            assert received(server, length) == content
            server.sendall(content[::-1])
            assert received(client, length) == content[::-1]
