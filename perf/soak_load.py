"""What passes through a soak: real programs, and flows that come and go; each load has a thread of its own.

A round sends, waits for what arrives, and counts; so a load can be stopped between two rounds, and nothing of
it is on the way then. TCP waits while a daemon hands over, which closes customized connections.
"""

import contextlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from perf import lab, udp_load
from perf.soak_judge import Delivery
from tests.netns.daemons import Service
from tests.netns.streams import dial, listener, noise, received
from tests.netns.topology import Host, Hosts

FEC_PORT, SCRAMBLE_PORT, STREAM_PORT, DROP_PORT, LOOK_PORT = 5202, 5203, 8100, 7005, 7006
KEY = 'key = "hex:00112233445566778899aabbccddeeff"'
UNWANTED = b"\xff\xfe unwanted"
DROP = '{ module = "drop", prefix = "hex:fffe", every = 1 }'
LOOK = '{ module = "drop", prefix = "hex:fdfdfdfdfdfd", every = 1 }'  # drops nothing
STREAM_TAG = '{ module = "stream_tag", every_bytes = 1000, tag_bytes = 32, id = "host-7" }'
SERVICES = {
    "tagged": Service(
        "tagged", lab.PORT, f'{{ module = "tag", id = "host-7" }}, {{ module = "scramble", {KEY} }}'
    ),
    "fec": Service("fec", FEC_PORT, '{ module = "fec" }'),
    "scrambled": Service("scrambled", SCRAMBLE_PORT, f'{{ module = "scramble", {KEY} }}', protocol="tcp"),
    "streams": Service("streams", STREAM_PORT, STREAM_TAG, protocol="tcp"),
    "dropped": Service("dropped", DROP_PORT, DROP),
    "looked": Service("looked", LOOK_PORT, LOOK),
}
ROUND_S = 2.0
QUIET_MS = 1500
FLOW = udp_load.Flow(payload_bytes=512, per_second=4000)
BUSY_S = 10.0  # a server of iperf3 with the end of the round before
UDP_RATE, TCP_RATE = "20M", "200M"
SHORT_FLOWS, SHORT_TIMEOUT_S = 200, 3.0  # a round; the last may take so long
SHORT_PAUSE_S = 0.25  # between two such rounds
CONNECTIONS, CONNECTION_BYTES = 20, 3001

Round = Callable[[], Delivery]


@dataclass
class Load:
    """Rounds of one kind until stop(); what they came to, and what went wrong."""

    name: str
    round: Round
    is_tcp: bool = False
    pause_s: float = 0.01  # between two rounds
    total: Delivery = field(default_factory=lambda: Delivery(0, 0, 0))
    errors: list[str] = field(default_factory=list)
    gate: threading.Lock = field(default_factory=threading.Lock)  # held while a round is on its way
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin the first round."""
        self._thread = threading.Thread(target=self._run, name=self.name)
        self._thread.start()

    def stop(self) -> None:
        """No further round."""
        self._ended.set()

    def join(self) -> None:
        """Until the last round is over."""
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with self.gate:
                    self.total = added(self.total, self.round())
            except Exception as error:  # whatever it is, the soak has failed
                self.errors.append(f"{self.name}: {type(error).__name__}: {error}")
                return
            self._ended.wait(self.pause_s)  # without the gate: a change may come in between


def added(one: Delivery, other: Delivery) -> Delivery:
    """Two rounds of one kind."""
    return Delivery(
        one.sent + other.sent,
        one.due + other.due,
        one.arrived + other.arrived,
        one.twice + other.twice,
        other.datagrams,
    )


def paced(hosts: Hosts) -> Delivery:
    """A flow of udp_load, whose content is compared."""
    found = udp_load.carry(hosts, udp_load.Way(hosts.b.ipv4), FLOW, ROUND_S, QUIET_MS)
    return Delivery(found.sent, found.sent, found.sent - found.lost, found.duplicates)


def _iperf(hosts: Hosts, port: int, *options: str) -> dict[str, Any]:
    words = ["iperf3", "-c", hosts.b.ipv4, "-p", str(port), "-t", f"{ROUND_S:g}", "-J", *options]
    until = time.monotonic() + BUSY_S
    while True:
        report = json.loads(hosts.a.run(words, check=False, timeout=60).stdout)
        if "error" not in report:
            return dict(report["end"])
        if "busy" not in report["error"] or time.monotonic() > until:
            raise lab.BenchmarkError(report["error"])
        time.sleep(0.1)


def iperf_udp(hosts: Hosts) -> Delivery:
    """iperf3's own count of datagrams."""
    found = _iperf(hosts, FEC_PORT, "-u", "-b", UDP_RATE, "-l", "1200")["sum"]
    return Delivery(found["packets"], found["packets"], found["packets"] - found["lost_packets"])


def iperf_tcp(hosts: Hosts) -> Delivery:
    """In megabytes; what iperf3 leaves on the way when its time is up was not due."""
    found = _iperf(hosts, SCRAMBLE_PORT, "-b", TCP_RATE)["sum_received"]
    megabytes = int(found["bytes"]) // 1_000_000
    return Delivery(megabytes, megabytes, megabytes, datagrams=False)


class ShortFlows:
    """UDP sockets with one datagram each, to the ports of two policies; every third is to be dropped."""

    def __init__(self, hosts: Hosts, stack: contextlib.ExitStack) -> None:
        self._hosts, self._serial = hosts, 0
        self._receivers = {
            port: stack.enter_context(_bound(hosts.b, port)) for port in (DROP_PORT, LOOK_PORT)
        }

    def round(self) -> Delivery:
        """SHORT_FLOWS of them."""
        due = self._send()
        arrived = self._receive(due)
        different = len(set(arrived))
        return Delivery(SHORT_FLOWS, len(due), different, len(arrived) - different)

    def _send(self) -> set[bytes]:
        due = set()
        with self._hosts.a.entered():
            for _ in range(SHORT_FLOWS):
                self._serial += 1
                unwanted = self._serial % 3 == 0
                content = (UNWANTED if unwanted else b"") + self._serial.to_bytes(8)
                port = DROP_PORT if unwanted or self._serial % 3 == 1 else LOOK_PORT
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    sender.sendto(content, (self._hosts.b.ipv4, port))
                due |= set() if unwanted else {content}
        return due

    def _receive(self, due: set[bytes]) -> list[bytes]:
        """Until all have come, or the time is over."""
        arrived: list[bytes] = []
        until = time.monotonic() + SHORT_TIMEOUT_S
        while not due <= set(arrived) and time.monotonic() < until:
            for receiver in self._receivers.values():
                arrived += _waiting_in(receiver)
            time.sleep(0.005)
        return arrived


def _bound(host: Host, port: int) -> socket.socket:
    receiver = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    receiver.bind((host.ipv4, port))
    receiver.setblocking(False)
    return receiver


def _waiting_in(receiver: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while True:
            yield receiver.recv(2000)


class Connections:
    """TCP connections with a question and its answer each, to a port of host b; every byte is compared."""

    def __init__(self, hosts: Hosts, port: int, stack: contextlib.ExitStack) -> None:
        self._hosts, self._port, self._serial = hosts, port, 0
        self._waiting = stack.enter_context(listener(hosts.b, socket.AF_INET, port))

    def round(self) -> Delivery:
        """CONNECTIONS of them."""
        arrived = sum(self._talk() for _ in range(CONNECTIONS))
        return Delivery(CONNECTIONS, CONNECTIONS, arrived, datagrams=False)

    def _talk(self) -> bool:
        self._serial += 1
        content = noise(CONNECTION_BYTES, self._serial)
        with dial(self._hosts.a, self._hosts.b, socket.AF_INET, self._port) as client:
            server = self._waiting.accept()[0]
            with server:
                server.settimeout(20)
                client.sendall(content)
                asked = received(server, len(content))
                server.sendall(asked[::-1])
                return received(client, len(content)) == content[::-1]


@contextlib.contextmanager
def loads(hosts: Hosts) -> Iterator[list[Load]]:
    """All of them, not started; their servers in host b."""
    with contextlib.ExitStack() as stack:
        for port in (FEC_PORT, SCRAMBLE_PORT):
            words = ["iperf3", "-s", "-p", str(port)]
            hosts.b.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lab.wait_for_ports(hosts.b, (FEC_PORT, SCRAMBLE_PORT))
        short = ShortFlows(hosts, stack)
        streams = Connections(hosts, STREAM_PORT, stack)
        yield [
            Load("tagged and scrambled datagrams", lambda: paced(hosts)),
            Load("iperf3 UDP under fec", lambda: iperf_udp(hosts)),
            Load("iperf3 TCP, scrambled", lambda: iperf_tcp(hosts), is_tcp=True),
            Load("short flows, a third to be dropped", short.round, pause_s=SHORT_PAUSE_S),
            Load("short connections with tags", streams.round, True, SHORT_PAUSE_S),
        ]
