"""What a handover costs packets that flow: how many are lost, how many pass as they are, how late they come.

    python -m perf.handover [--rounds 10] [--pace 2000] [--seconds 10]

Needs root. A client in host a sends numbered, time-stamped datagrams to host b, which has no daemon for them
and so sees what is on the wire: one without the tag of a's policy has passed as it was. Beside it, a TCP
stream goes from a to b under a chain that flips its bytes in place; b's daemon flips them back, so that a
byte that passed one end by arrives garbled. Ways in turn: nothing happens; `layer45 reload` so many times,
and `layer45 restart`; and, without the stream, the daemon is stopped and started so many times. A closed
stream or a garbled byte ends the run.
"""

import argparse
import contextlib
import itertools
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf import lab, record
from tests.netns.daemons import Daemon, Service, client_side, running, server_side
from tests.netns.datagrams import BUFFER_BYTES, SO_RCVBUFFORCE
from tests.netns.steady import SteadyTransfer, write_flip
from tests.netns.streams import connection
from tests.netns.topology import Host, Hosts, two_hosts

PORT, TCP_PORT = 7001, 8100
MARKED = Service("marked", PORT, '{ module = "tag", id = "twenty bytes of name" }')
FLIPPED = Service("flipped", TCP_PORT, '{ module = "flip" }', protocol="tcp")
STAMP = struct.Struct("!Qd")  # number, time


@dataclass(frozen=True)
class Outcome:
    """Of one way. gap: between two arrivals in a row. stream_gap: of the TCP stream's."""

    sent: int
    lost: int
    uncustomized: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    gap_ms: float
    stream_bytes: int
    stream_gap_ms: float
    took_ms: list[float]


class Receiver:
    """Takes the time of each datagram's arrival, by a thread."""

    def __init__(self, host: Host) -> None:
        self.arrivals: list[tuple[int, float, float, int]] = []  # number, sent, came, bytes
        self._ended = False
        self._socket = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self._socket.bind((host.ipv4, PORT))
        self._socket.settimeout(0.5)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                content = self._socket.recv(2000)
            except TimeoutError:
                if self._ended:
                    return
                continue
            self.arrivals.append((*STAMP.unpack_from(content), time.monotonic(), len(content)))

    def stop(self) -> None:
        """When nothing more comes."""
        self._ended = True
        self._thread.join()
        self._socket.close()


def send(hosts: Hosts, pace: int, until: Callable[[float], bool]) -> int:
    """Datagrams at a steady pace while `until` says no; how many."""
    sent, begun = 0, time.monotonic()
    with hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((hosts.b.ipv4, PORT))
        while not until(time.monotonic() - begun):
            while sent < (time.monotonic() - begun) * pace:
                sender.send(STAMP.pack(sent, time.monotonic()))
                sent += 1
            time.sleep(0.2 / pace)
    return sent


def changes(daemon: Daemon, way: str, rounds: int, seconds: float) -> list[float]:
    """So many of them, spread over the time; milliseconds that each took."""
    took, begun = [], time.monotonic()
    for turn in range(rounds):
        time.sleep(max(0, begun + turn * seconds / rounds - time.monotonic()))
        started = time.monotonic()
        if way == "reload":
            daemon.reload()
        elif way == "handover":
            daemon.restart()
        elif way == "stop and start":
            daemon.stop()
            daemon.start()
        took.append((time.monotonic() - started) * 1000)
    return took


def measure(hosts: Hosts, daemon: Daemon, way: str, options: argparse.Namespace) -> Outcome:
    """One way, with the load all the time."""
    receiver, took = Receiver(hosts.b), list[float]()
    with connection(hosts, socket.AF_INET, TCP_PORT) as ends:
        steady = SteadyTransfer(*ends) if way != "stop and start" else None
        worker = threading.Thread(
            target=lambda: took.extend(changes(daemon, way, options.rounds, options.seconds))
        )
        worker.start()
        sent = send(hosts, options.pace, lambda passed: passed > options.seconds and not worker.is_alive())
        worker.join()
        stream_bytes = steady.stop() if steady else 0
    receiver.stop()
    if not receiver.arrivals:
        raise lab.BenchmarkError("nothing arrived")
    late = sorted((came - begun) * 1000 for _, begun, came, _ in receiver.arrivals)
    times = [came for _, _, came, _ in receiver.arrivals]
    return Outcome(
        sent=sent,
        lost=sent - len({number for number, *_ in receiver.arrivals}),
        uncustomized=sum(count == STAMP.size for *_, count in receiver.arrivals),
        p50_ms=late[len(late) // 2],
        p99_ms=late[len(late) * 99 // 100],
        worst_ms=late[-1],
        gap_ms=max(later - earlier for earlier, later in itertools.pairwise(times)) * 1000,
        stream_bytes=stream_bytes,
        stream_gap_ms=steady.longest_gap_s * 1000 if steady else 0.0,
        took_ms=took if way != "nothing" else [],
    )


def show(way: str, found: Outcome) -> None:
    """A few lines."""
    took = record.summary(found.took_ms)["median"] if found.took_ms else 0
    print(
        f"{way}: {found.sent} sent, {found.lost} lost, {found.uncustomized} uncustomized; {took:.0f} ms each"
    )
    late = f"p50 {found.p50_ms:.2f}, p99 {found.p99_ms:.2f}, worst {found.worst_ms:.1f}"
    print(f"  {late}, gap {found.gap_ms:.1f} ms")
    print(f"  stream: {found.stream_bytes / 1e6:.1f} MB whole, gap {found.stream_gap_ms:.1f} ms")


def main() -> None:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(prog="python -m perf.handover")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pace", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    body: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(two_hosts())
        settings = write_flip(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        daemon = stack.enter_context(running(hosts.a, client_side([MARKED, FLIPPED]), settings))
        stack.enter_context(running(hosts.b, server_side([FLIPPED]), settings))
        for way in ("nothing", "reload", "handover", "stop and start"):
            found = measure(hosts, daemon, way, options)
            show(way, found)
            body[way] = vars(found)
    record.write("handover", "what a handover costs packets that flow", {"pace": options.pace, "ways": body})
    late = {way: [found[f"{which}_ms"] for which in ("p50", "p99", "worst")] for way, found in body.items()}
    record.plot("handover", "Datagrams meanwhile: p50, p99 and worst", "ms from send() to recv()", late)


if __name__ == "__main__":
    main()
