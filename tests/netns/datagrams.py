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
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .topology import Host

FAMILIES = (socket.AF_INET, socket.AF_INET6)
LONGEST = {socket.AF_INET: 1472, socket.AF_INET6: 1452}  # payload bytes that fit an MTU of 1500
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
    try:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        yield server
    finally:
        server.kill()
        server.wait(5)
        server.stdout.close()


def connected(host: Host, family: int, peer: Host, port: int) -> socket.socket:
    """A UDP socket in host that talks to the peer's port."""
    client = host.socket(family, socket.SOCK_DGRAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
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
            under_way -= len(got) + 200
        client.send(each)
        under_way += len(each) + 200
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


def flood(client: socket.socket, count: int, per_second: float, first: int = 0) -> None:
    """Sends count numbered datagrams at a steady pace; their numbers are their first four bytes."""
    begun = time.monotonic()
    for number in range(count):
        wait_s = begun + number / per_second - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        client.send(struct.pack("!I", first + number) + b" numbered datagram")


def numbers(received: Iterable[bytes]) -> list[int]:
    """The numbers of flood's datagrams."""
    return [struct.unpack_from("!I", each)[0] for each in received]
