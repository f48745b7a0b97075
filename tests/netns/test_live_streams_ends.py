"""How connections begin, idle and end, through stream_tag: programs hear what they would hear without it.

a ── stream_tag ──▶ wire ──▶ stream_tag ── b
"""

import contextlib
import fcntl
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from .datagrams import FAMILIES, both_families
from .streams import (
    TAG,
    Road,
    assert_nobody_noticed,
    both_ways,
    connection,
    counted,
    crossing,
    dial,
    have_raw_table,
    listener,
    noise,
    received,
    streams,
    tcp,
    transfer,
)
from .topology import Host, two_hosts

pytestmark = pytest.mark.root

PORT, TINY_PORT = 8600, 8601
TINY = '{ module = "stream_tag", id = "T", every_bytes = 16, tag_bytes = 3 }'
SERVICES = [tcp("web", PORT, TAG), tcp("tiny", TINY_PORT, TINY)]
both_layouts = pytest.mark.parametrize("port", [PORT, TINY_PORT], ids=["default", "tiny"])


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    with two_hosts() as hosts:
        for host in hosts:
            host.run(["sysctl", "-q", "net.ipv4.tcp_fastopen=3", "net.ipv4.tcp_tw_reuse=1"])
            have_raw_table(host)
        with streams(hosts, SERVICES) as (a, b):
            yield Road(hosts, a, b)


@pytest.fixture(autouse=True)
def nobody_notices(road: Road) -> Iterator[None]:
    yield
    assert_nobody_noticed(road.hosts)


@both_families
def test_a_closed_port_refuses_at_once(road: Road, family: int) -> None:
    begun = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        dial(road.hosts.a, road.hosts.b, family, PORT)
    assert time.monotonic() - begun < 1


@both_families
@both_layouts
def test_a_reset_in_mid_stream(road: Road, family: int, port: int) -> None:
    """SO_LINGER 0 by either end: the other one hears of it at once."""
    for resets in (0, 1):
        with connection(road.hosts, family, port) as ends:
            assert transfer(*ends, noise(100_003)) == noise(100_003)
            assert transfer(*ends[::-1], noise(50_001)) == noise(50_001)
            ends[resets].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ends[resets].close()
            begun = time.monotonic()
            with pytest.raises(ConnectionResetError):
                ends[1 - resets].recv(1)
            assert time.monotonic() - begun < 1


@both_families
@both_layouts
def test_a_half_closed_connection(road: Road, family: int, port: int) -> None:
    """Data goes on the other way behind a FIN, wherever that stands between runs."""
    for count in (0, 1, 16_000, 16_001):
        with connection(road.hosts, family, port) as (client, server):
            client.sendall(noise(count))
            client.shutdown(socket.SHUT_WR)
            assert received(server, count + 1) == noise(count)
            assert transfer(server, client, noise(300_007)) == noise(300_007)
            server.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""


def test_keep_alives_of_idle_connections(road: Road) -> None:
    """Both ends send and answer them, so that nobody gives up; before and behind data."""
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(connection(road.hosts, family, PORT)) for family in FAMILIES]
        for family in FAMILIES:
            used = stack.enter_context(connection(road.hosts, family, TINY_PORT))
            assert transfer(*used, noise(1003)) == noise(1003)
            pairs.append(used)
        for end in (end for ends in pairs for end in ends):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
                end.setsockopt(socket.IPPROTO_TCP, option, 1)
        time.sleep(4)
        for ends in pairs:
            assert transfer(*ends, noise(20_000)) == noise(20_000)
            assert transfer(*ends[::-1], noise(20_000)) == noise(20_000)


@pytest.mark.parametrize(("family", "port"), [(FAMILIES[0], TINY_PORT), (FAMILIES[1], PORT)])
def test_a_receiver_that_does_not_read(road: Road, family: int, port: int) -> None:
    """Its window closes and opens again."""
    content = noise(12_000_000)
    with connection(road.hosts, family, port) as (client, server):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        sender = threading.Thread(target=client.sendall, args=(content,))
        sender.start()
        time.sleep(3)
        assert sender.is_alive()
        assert received(server, len(content)) == content
        sender.join()


@both_families
def test_the_same_ports_again(road: Road, family: int) -> None:
    """Out of TIME_WAIT at either end, several times."""
    with counted(*road.daemons) as (a, b):
        for closes_first in (1, 0, 1):
            with connection(road.hosts, family, PORT, 50_000) as ends:
                assert transfer(*ends, noise(10_000)) == noise(10_000)
                assert transfer(*ends[::-1], noise(10_000)) == noise(10_000)
                ends[closes_first].close()
                assert ends[1 - closes_first].recv(1) == b""
            time.sleep(0.2 if closes_first else 1.2)  # LAST_ACK ends; our TIME_WAIT lasts a second
    assert a["connections_customized"] == b["connections_customized"] == 3


def _fast_open(host: Host, peer: Host, family: int, port: int, content: bytes) -> socket.socket:
    """A connection whose SYN has data, where a cookie is known."""
    client = host.socket(family, socket.SOCK_STREAM)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 10, 0))
    client.sendto(content, socket.MSG_FASTOPEN, (peer.address(family), port))
    client.settimeout(10)
    return client


@both_families
@both_layouts
def test_fast_open(road: Road, family: int, port: int) -> None:
    """Data in the SYN arrives once and unchanged, without and with a cookie, also more than fits."""
    with counted(*road.daemons) as (a, b), listener(road.hosts.b, family, port) as waiting:
        waiting.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
        for count in (1, 300, 1001, 5000, 100_000):
            content = noise(count, count)
            with (
                _fast_open(road.hosts.a, road.hosts.b, family, port, content[:20_000]) as client,
                waiting.accept()[0] as server,
            ):
                server.settimeout(10)
                client.sendall(content[20_000:])
                assert received(server, count) == content
                assert transfer(server, client, content) == content
                client.shutdown(socket.SHUT_WR)
                assert server.recv(1) == b""
    assert a["connections_customized"] == b["connections_customized"] == 5


@both_families
@both_layouts
def test_urgent_data(road: Road, family: int, port: int) -> None:
    """The mark is where the sender set it, in the stream and out of band."""
    for inline in (0, 1):
        for before in (0, 1, 15, 16, 17, 999, 1000, 1001, 4000):
            with connection(road.hosts, family, port) as (client, server):
                server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, inline)
                client.sendall(noise(before))
                client.send(b"!", socket.MSG_OOB)
                client.sendall(noise(50))
                client.shutdown(socket.SHUT_WR)
                time.sleep(0.05)
                _assert_urgent(server, before, inline)


def _assert_urgent(server: socket.socket, before: int, inline: int) -> None:
    if not inline:
        assert server.recv(1, socket.MSG_OOB) == b"!"
    content = received(server, before) if before else b""
    assert content == noise(before) and _at_mark(server)
    assert received(server, 100) == (b"!" if inline else b"") + noise(50)


def _at_mark(server: socket.socket) -> bool:
    return bool(struct.unpack("i", fcntl.ioctl(server.fileno(), 0x8905, b"\0\0\0\0"))[0])  # SIOCATMARK


@both_families
def test_a_simultaneous_open(road: Road, family: int) -> None:
    """Two SYNs cross, when the wire that lost the first ones carries again: the connection stays as it is."""
    with counted(*road.daemons) as (a, b), crossing(road.hosts, family, PORT) as ends:
        for end in ends:
            assert select.select([], [end], [], 10)[1]
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            end.settimeout(10)
        assert transfer(*ends, noise(50_000)) == noise(50_000)
        assert transfer(*ends[::-1], noise(50_000)) == noise(50_000)
    assert a["connections_alone"] == b["connections_alone"] == 1


def test_many_lengths_of_streams(road: Road) -> None:
    """Each connection's stream ends somewhere else around a run."""
    for count in (*range(40), *range(995, 1006)):
        both_ways(road.hosts, socket.AF_INET, TINY_PORT if count < 100 else PORT, count)
