"""fec with adaptive: the receiver tells what is lost, the sender follows; live, with the kernel's losses.

a: sender ── fec ──▶ wire ── losses ──▶ b: fec ── sink;   reports: b ──▶ wire ──▶ a: fec, and no further
"""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from .daemons import Daemon, Service, client_side, running, server_side
from .datagrams import connected
from .topology import Host, Hosts

pytestmark = pytest.mark.root

PER_SECOND, SECONDS = 1500, 2.0
FEC = (
    '{{ module = "fec", source_symbols = 20, repair_symbols = 1, deadline_ms = 30, adaptive = true, '
    'report_ms = 50, target_residual_percent = 0.1, key = "{key}" }}'
)
GOOD = Service("good", 7301, FEC.format(key="of both"))
FORGED = Service("forged", 7302, FEC.format(key="of a"), server_chain=FEC.format(key="of b"))
SERVICES = [GOOD, FORGED]


@contextlib.contextmanager
def losses(host: Host, part: float) -> Iterator[None]:
    """What the host gets over UDP is lost with this probability."""
    rule = f"PREROUTING -p udp -m statistic --mode random --probability {part} -j DROP".split()
    host.run(["iptables", "-t", "raw", "-A", *rule])
    try:
        yield
    finally:
        host.run(["iptables", "-t", "raw", "-D", *rule])


@pytest.fixture
def ends(hosts: Hosts) -> Iterator[tuple[Hosts, Daemon, Daemon]]:
    with losses(hosts.b, 1):
        pass  # the table that this makes stays
    with running(hosts.a, client_side(SERVICES)) as a, running(hosts.b, server_side(SERVICES)) as b:
        yield hosts, a, b


def send(client: socket.socket, first: int, seconds: float) -> int:
    """Numbered datagrams at a steady pace; how many there are now."""
    begun, number = time.monotonic(), first
    while (now := time.monotonic() - begun) < seconds:
        while number - first < now * PER_SECOND:
            with contextlib.suppress(BlockingIOError):
                client.send(struct.pack("!I", number) + b"x" * 200)
            number += 1
        time.sleep(0.002)
    return number


def repairs_a_block(a: Daemon, name: str, before: dict[str, int]) -> float:
    after = a.counters(name, "fec")
    blocks = sum(after[each] - before[each] for each in ("blocks_full", "blocks_short"))
    return (after["repairs"] - before["repairs"]) / blocks


def sink(host: Host, port: int) -> socket.socket:
    server = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
    server.bind(("0.0.0.0", port))
    server.setblocking(False)
    return server


def received(server: socket.socket) -> list[int]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(struct.unpack_from("!I", server.recv(2048))[0])
    return found


def test_repairs_follow_the_losses(ends: tuple[Hosts, Daemon, Daemon]) -> None:
    hosts, a, b = ends
    with sink(hosts.b, GOOD.port) as server, connected(hosts.a, socket.AF_INET, hosts.b, GOOD.port) as client:
        calm = a.counters("good", "fec")
        count = send(client, 0, SECONDS)
        assert repairs_a_block(a, "good", calm) < 2
        with losses(hosts.b, 0.1):
            count = send(client, count, 1.0)
            arrived = len(received(server))
            lossy = a.counters("good", "fec")
            first, count = count, send(client, count, SECONDS)
            time.sleep(0.4)
        numbers = received(server)
        assert 4.5 < repairs_a_block(a, "good", lossy) < 14  # the model says 7 for exactly 10 %
        assert count - first - len(numbers) < (count - first) * 0.02  # of 10 %
        assert arrived
        with pytest.raises(BlockingIOError):
            client.recv(100)  # reports are not for programs
    told, heard = b.counters("good", "fec"), a.counters("good", "fec")
    assert told["reports_sent"] >= heard["reports_received"] > 20
    assert heard["reports_refused"] == 0
    (flow,) = [each for each in a.flows() if each["policy"] == "good"]
    assert flow["instances"][0]["counters"]["sources"] == heard["sources"]


def test_reports_of_somebody_else_are_refused(ends: tuple[Hosts, Daemon, Daemon]) -> None:
    hosts, a, b = ends
    with (
        sink(hosts.b, FORGED.port),
        connected(hosts.a, socket.AF_INET, hosts.b, FORGED.port) as client,
        losses(hosts.b, 0.2),
    ):
        send(client, 0, SECONDS)
        with pytest.raises(BlockingIOError):
            client.recv(100)
    counted = a.counters("forged", "fec")
    assert counted["reports_received"] == 0 < counted["reports_refused"]
    assert counted["repairs"] == counted["blocks_full"] + counted["blocks_short"]
    assert b.counters("forged", "fec")["reports_sent"] >= counted["reports_refused"]
