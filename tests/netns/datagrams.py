"""Datagrams between two hosts: an echo server, which is a program of its own, and what a client sends to it.

with echo(hosts.b, 7001, 7002):
    client = connected(hosts.a, AF_INET, hosts.b, 7001)
    assert exchange(client, payloads) == payloads
"""

import contextlib
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from .topology import Host

FAMILIES = (socket.AF_INET, socket.AF_INET6)
both_families = pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
LONGEST = {socket.AF_INET: 1472, socket.AF_INET6: 1452}  # payload bytes that fit an MTU of 1500
SO_RCVBUFFORCE = 33  # beyond the system's limit, which is some 250 small datagrams
BUFFER_BYTES = 8 << 20
IN_FLIGHT_BYTES = 60_000  # what a socket's buffer holds for certain

# Every datagram goes back to where it came from.
ECHO = """
import select, socket, sys
ports = [int(word) for word in sys.argv[1:]]
poller = select.epoll()
sockets = {}
for port in ports:
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        each = socket.socket(family, socket.SOCK_DGRAM)
        each.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        each.bind((address, port))
        sockets[each.fileno()] = each
        poller.register(each, select.EPOLLIN)
print("ready", flush=True)
while True:
    for number, _ in poller.poll():
        payload, peer = sockets[number].recvfrom(65536)
        sockets[number].sendto(payload, peer)
"""


@contextlib.contextmanager
def echo(host: Host, *ports: int) -> Iterator[subprocess.Popen[Any]]:
    """A UDP echo server on each of these ports, IPv4 and IPv6."""
    words = [sys.executable, "-c", ECHO, *map(str, ports)]
    server = host.popen(words, stdout=subprocess.PIPE)
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == "ready\n"
        yield server
    finally:
        server.kill()
        server.wait(5)
        server.stdout.close()


def connected(host: Host, family: int, peer: Host, port: int) -> socket.socket:
    """A UDP socket in host that talks to the peer's port."""
    client = host.socket(family, socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    client.connect((peer.address(family), port))
    client.setblocking(False)
    return client


def payload(length: int, serial: int = 0) -> bytes:
    """Bytes that differ from those of any other serial: noise for odd lengths, text for even ones."""
    head = struct.pack("!IH", serial, length)
    if length % 2:
        body = random.Random(serial << 16 | length).randbytes(length)
    else:
        body = b"plain text, again " * (length // 18 + 1)
    return (head + body)[:length] if length > 6 else zlib.compress(head)[2 : 2 + length]


def payloads(lengths: Iterable[int]) -> list[bytes]:
    """One payload of each length, no two long ones alike."""
    return [payload(length, serial) for serial, length in enumerate(lengths)]


def exchange(client: socket.socket, sent: Sequence[bytes], quiet_s: float = 2.0) -> list[bytes]:
    """Sends each payload, keeping few under way, and returns what came back, until nothing more comes.

    It stops early when all came, and then waits a little for what came twice.
    """
    received: list[bytes] = []
    under_way = 0
    for each in sent:
        while under_way and under_way + len(each) > IN_FLIGHT_BYTES:
            got = _receive(client, quiet_s)
            if got is None:
                under_way = 0  # lost: the caller will see it
                break
            received.append(got)
            under_way -= len(got) + 800
        client.send(each)
        under_way += len(each) + 800
    while len(received) < len(sent):
        got = _receive(client, quiet_s)
        if got is None:
            return received
        received.append(got)
    while (got := _receive(client, 0.1)) is not None:
        received.append(got)
    return received


def _receive(client: socket.socket, timeout_s: float) -> bytes | None:
    if not select.select([client], [], [], timeout_s)[0]:
        return None
    return client.recv(65536)


def numbers(received: Iterable[bytes]) -> list[int]:
    """The numbers of a Stream's datagrams."""
    return [struct.unpack_from("!I", each)[0] for each in received]


class Stream:
    """Numbered datagrams to an echo server at a steady pace, by a thread, until stop()."""

    def __init__(self, client: socket.socket, per_second: float) -> None:
        self.sent = 0
        self.received: list[bytes] = []
        self._client = client
        self._per_second = per_second
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Stream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._ended.is_set():
            due = int((time.monotonic() - begun) * self._per_second)
            while self.sent < due and self._send():
                self.sent += 1
            self._receive(1 / self._per_second)

    def _send(self) -> bool:
        """False while the socket takes no more: the queue still has what it sent before."""
        try:
            self._client.send(struct.pack("!I", self.sent) + b" numbered datagram")
        except BlockingIOError:
            return False
        except PermissionError:  # dropped: a closed policy's queue is gone
            pass
        return True

    def _receive(self, timeout_s: float) -> bool:
        got = select.select([self._client], [], [], timeout_s)[0]
        with contextlib.suppress(BlockingIOError):
            while got:
                self.received.append(self._client.recv(65536))
        return bool(got)

    def stop(self) -> None:
        """Ends the sending, and waits for what is still to come."""
        if not self._ended.is_set():
            assert self._thread.is_alive(), "the stream broke off"
            self._ended.set()
            self._thread.join()
            while self._receive(2.0):
                pass

    def numbers(self) -> list[int]:
        """Of the datagrams that came back, in order of arrival."""
        return numbers(self.received)

    def lost(self) -> list[int]:
        """Numbers that did not come back; only after stop()."""
        return sorted(set(range(self.sent)) - set(self.numbers()))

    def assert_complete(self) -> None:
        """AssertionError when a number is lost; only after stop()."""
        lost = self.lost()
        assert not lost, f"{len(lost)} of {self.sent} lost: {lost[:3]} ... {lost[-3:]}"
