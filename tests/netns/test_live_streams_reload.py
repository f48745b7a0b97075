"""A reload in mid-transfer: a customized connection keeps its layout to its end, a new one has the new one.

a: a slow download, kept alive ── stream_tag ──▶ wire ──▶ stream_tag ── b: sends on and on
"""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from .daemons import Service, client_side, server_side
from .datagrams import FAMILIES
from .streams import connection, counters, customized, engine, noise, streams, tcp, transfer
from .topology import Hosts
from .wire import stream_on_the_wire

pytestmark = pytest.mark.root

PORT = 8100
CHUNK_BYTES, LARGEST_BYTES = 50_000, 200_000_000
OLD, NEW = (1000, 32), (333, 7)


def _service(every_bytes: int, tag_bytes: int) -> Service:
    chain = f'{{ module = "stream_tag", id = "T", every_bytes = {every_bytes}, tag_bytes = {tag_bytes} }}'
    return tcp("moved", PORT, chain)


class _Slow:
    """Bytes at a slow pace from one end to the other, until stop()."""

    def __init__(self, sender: socket.socket, receiver: socket.socket) -> None:
        self.ends = sender, receiver
        self.sent, self.got = bytearray(), bytearray()
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def _send(self) -> None:
        content = noise(CHUNK_BYTES * 20)
        while not self.ended.is_set() and len(self.sent) < LARGEST_BYTES:
            at = len(self.sent) % len(content)
            self.ends[0].sendall(content[at : at + CHUNK_BYTES])
            self.sent += content[at : at + CHUNK_BYTES]
            time.sleep(0.02)
        self.ends[0].shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while part := self.ends[1].recv(1 << 20):
            self.got += part

    def stop(self) -> None:
        """And all has arrived."""
        assert all(thread.is_alive() for thread in self.threads)
        self.ended.set()
        for thread in self.threads:
            thread.join()
        assert self.got == self.sent and len(self.sent) > CHUNK_BYTES


@contextlib.contextmanager
def _slow_transfers(hosts: Hosts, family: int) -> Iterator[None]:
    """Both ways in one connection while the context lasts."""
    with connection(hosts, family, PORT) as (client, server):
        ways = [_Slow(client, server), _Slow(server, client)]
        for way in ways:
            for thread in way.threads:
                thread.start()
        try:
            yield
        finally:
            for way in ways:
                way.stop()


def _assert_layout(hosts: Hosts, family: int, layout: tuple[int, int]) -> None:
    """A new connection has this layout on the wire."""
    every_bytes, tag_bytes = layout
    content = noise(every_bytes * 20, 3)
    with hosts.b.capture(f"tcp port {PORT}") as capture, connection(hosts, family, PORT) as (client, server):
        assert transfer(server, client, content) == content
    tag = b"T".ljust(tag_bytes, b"\0")
    chunks = [content[at : at + every_bytes] for at in range(0, len(content), every_bytes)]
    assert stream_on_the_wire(capture, PORT) == b"".join(tag + chunk for chunk in chunks)


def test_old_connections_keep_their_layout(hosts: Hosts) -> None:
    """Through two reloads of both ends, while new connections have the new layout each time."""
    with streams(hosts, [_service(*OLD)]) as (a, b):
        with _slow_transfers(hosts, socket.AF_INET), _slow_transfers(hosts, socket.AF_INET6):
            for layout in (NEW, OLD):
                a.reload(client_side([_service(*layout)]))
                b.reload(server_side([_service(*layout)]))
                for family in FAMILIES:
                    _assert_layout(hosts, family, layout)
        assert customized(a) == customized(b) == 6
        assert engine(a)["connections_alone"] == engine(b)["connections_alone"] == 0


def test_while_the_ends_differ_new_connections_are_left_alone(hosts: Hosts) -> None:
    """One end has the new layout already: no tags, nothing lost."""
    with streams(hosts, [_service(*OLD)]) as (a, b):
        a.reload(client_side([_service(*NEW)]))
        with connection(hosts, socket.AF_INET, PORT) as (client, server):
            assert transfer(client, server, noise(300_000)) == noise(300_000)
            assert transfer(server, client, noise(300_000)) == noise(300_000)
        assert customized(a) == customized(b) == 0
        assert engine(a)["connections_alone"] == engine(b)["connections_alone"] == 1
        assert counters(a, "moved")["tags"] == counters(b, "moved")["tags"] == 0
        b.reload(server_side([_service(*NEW)]))
        _assert_layout(hosts, socket.AF_INET, NEW)


def test_a_policy_that_goes_closes_its_connections(hosts: Hosts) -> None:
    """Nobody translates them any more: both programs hear of it soon, and a new connection is a plain one."""
    with (
        streams(hosts, [_service(*OLD)]) as daemons,
        connection(hosts, socket.AF_INET, PORT) as ends,
    ):
        assert transfer(*ends, noise(10_000)) == noise(10_000)
        for daemon in daemons:
            daemon.reload("")
        for end in ends:
            with pytest.raises(ConnectionError):
                end.sendall(b"x")
                end.recv(1)
        with connection(hosts, socket.AF_INET, PORT) as again:
            assert transfer(*again, noise(10_000)) == noise(10_000)
