"""Datagrams one way, from a to b: sent at a steady pace, lost by rule, collected with their times.

with losing(hosts.b, AF_INET, "--dport 7001 -m statistic --mode random --probability 0.05"):
    with Sink(hosts.b, 7001) as sink, connected(hosts.a, AF_INET, hosts.b, 7001) as client:
        paced([(client, payload), ...], per_second=1000)
    sink.received[7001]                              # [(payload, CLOCK_MONOTONIC in ns), ...]
"""

import contextlib
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import IO

from .topology import Host

SINK = """
import pickle, select, socket, sys, time
ports = [int(word) for word in sys.argv[1:]]
received = {port: [] for port in ports}
poller, sockets = select.epoll(), {}
for port in ports:
    each = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    each.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)
    each.bind(("::", port))
    each.setblocking(False)
    sockets[each.fileno()] = each, received[port]
    poller.register(each, select.EPOLLIN)
poller.register(sys.stdin, select.EPOLLIN)
print("ready", flush=True)
ended = False
while not ended:
    for number, _ in poller.poll():
        if number not in sockets:
            ended = True
            continue
        each, found = sockets[number]
        try:
            while True:
                found.append((each.recv(65536), time.monotonic_ns()))
        except BlockingIOError:
            pass
sys.stdout.buffer.write(pickle.dumps(received))
"""


class Sink:
    """A program that collects what comes to ports of a host, by IPv4 and IPv6."""

    def __init__(self, host: Host, *ports: int) -> None:
        self.received: dict[int, list[tuple[bytes, int]]] = {}
        words = [sys.executable, "-c", SINK, *map(str, ports)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": False}
        self._program = host.popen(words, **pipes)

    def __enter__(self) -> "Sink":
        assert self._output.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        """Waits a little for what is still under way, and then knows all."""
        time.sleep(0.3)
        assert self._program.stdin is not None
        self._program.stdin.close()
        self.received = pickle.loads(self._output.read())
        self._output.close()
        assert self._program.wait(5) == 0

    @property
    def _output(self) -> IO[bytes]:
        assert self._program.stdout is not None
        return self._program.stdout

    def payloads(self, port: int) -> list[bytes]:
        """In order of arrival."""
        return [payload for payload, _ in self.received[port]]


def paced(datagrams: Iterable[tuple[socket.socket, bytes]], per_second: float) -> list[int]:
    """Sends each by its socket, about as many a second, and returns when: CLOCK_MONOTONIC in ns."""
    times: list[int] = []
    begun = time.monotonic()
    for client, payload in datagrams:
        wait = begun + len(times) / per_second - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        times.append(time.monotonic_ns())
        _send(client, payload)
    return times


def _send(client: socket.socket, payload: bytes) -> None:
    until = time.monotonic() + 5
    while True:
        try:
            client.send(payload)
            return
        except BlockingIOError:  # the queue still has what it sent before
            assert time.monotonic() < until
            time.sleep(0.001)


TOOLS = {socket.AF_INET: "iptables", socket.AF_INET6: "ip6tables"}


@contextlib.contextmanager
def losing(host: Host, family: int, *matches: str) -> Iterator[None]:
    """What comes to the host by UDP and matches is lost, before anything else sees it."""
    rules = [["-p", "udp", *match.split(), "-j", "DROP"] for match in matches]
    command = [TOOLS[family], "-w", "5", "-t", "raw"]
    for rule in rules:
        host.run([*command, "-A", "PREROUTING", *rule])
    try:
        yield
    finally:
        for rule in rules:
            host.run([*command, "-D", "PREROUTING", *rule])


def keep_tables(host: Host) -> None:
    """Makes the tables that the first rule makes and that stay: `running` compares before and after."""
    for family in TOOLS:
        with losing(host, family, "--dport 9"):
            pass


class Pacer:
    """Numbered datagrams by a thread, until the context ends."""

    def __init__(self, client: socket.socket, per_second: float) -> None:
        self.sent: list[bytes] = []
        self._client, self._per_second = client, per_second
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Pacer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        paced(self._datagrams(), self._per_second)

    def _datagrams(self) -> Iterator[tuple[socket.socket, bytes]]:
        """All of one length: what is wrongly put together of them looks right."""
        while not self._ended.is_set():
            self.sent.append(b"%08d %s" % (len(self.sent), random.Random(len(self.sent)).randbytes(40)))
            yield self._client, self.sent[-1]
