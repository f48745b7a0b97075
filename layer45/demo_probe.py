"""How long datagrams take from one program to the other, under the policy and beside it.

    python -m layer45.demo_probe send ADDRESS PORT
    python -m layer45.demo_probe receive PORT FILE

The sender writes the time at which it calls send() into each datagram, the receiver takes the time when
recv() has returned; both hosts are this machine and have one clock. Size and pace are those of the demo's
iperf3. What came in a repair datagram is told by its TOS, which a rule of the receiving host sets by the
length of what arrives. Behind number and time a datagram has bytes that the receiver can check.
"""

import contextlib
import json
import random
import socket
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from layer45.demo_hosts import ADDRESSES, DemoError, Host, last_line, wait_until
from layer45.demo_iperf import BITS_PER_S, CUSTOMIZED, DATAGRAM_BYTES, PORTS, side_by_side
from layer45.fec_plan import ENCODED_BYTES, TRAILER_BYTES

SECONDS = 4
INTERVAL_NS = 8 * DATAGRAM_BYTES * 1_000_000_000 // BITS_PER_S
COUNT = SECONDS * 1_000_000_000 // INTERVAL_NS
STAMP = struct.Struct("!QQ")  # number, CLOCK_MONOTONIC in ns
HEADERS_BYTES = 28
REPAIR_BYTES = HEADERS_BYTES + DATAGRAM_BYTES + ENCODED_BYTES + TRAILER_BYTES
REPAIR_TOS = 0x08
FIRST_S, QUIET_S = 30.0, 0.6  # how long a receiver waits for its first datagram, and for another one
SO_RCVBUFFORCE = 33  # Python has no name for it
BUFFER_BYTES = 8 << 20


@dataclass(frozen=True)
class Delays:
    """Of the datagrams that came to a program, in ns, sorted: those that arrived, those made anew."""

    arrived: list[int]
    recovered: list[int]


def probe(a: Host, b: Host, folder: Path) -> dict[int, Delays]:
    """Sends COUNT datagrams to either port at the same time; what came of them, by port."""
    _mark_repairs(b)
    files = {port: folder / f"{port}.json" for port in PORTS}
    commands = {port: _words("send", ADDRESSES["b"], str(port)) for port in PORTS}
    commands[CUSTOMIZED] = a.layer45("exec", "demo", "--", *commands[CUSTOMIZED])
    with contextlib.ExitStack() as stack:
        for port, file in files.items():
            stack.enter_context(_receiver(b, port, file))
        for _, errors in side_by_side(a, commands, SECONDS + 30).values():
            if errors:
                raise DemoError(f"the probe's sender: {last_line(errors)}")
    return {port: Delays(**json.loads(file.read_text())) for port, file in files.items()}


def _words(*words: str) -> list[str]:
    return [sys.executable, "-m", "layer45.demo_probe", *words]


def _mark_repairs(host: Host) -> None:
    """The module leaves the IP header of a datagram that it makes anew as the repair's was."""
    what = ["-p", "udp", "--dport", str(CUSTOMIZED), "-m", "length", "--length", str(REPAIR_BYTES)]
    rule = [*what, "-j", "TOS", "--set-tos", f"{REPAIR_TOS:#x}"]
    host.run("iptables", "-w", "-t", "mangle", "-A", "PREROUTING", *rule)


@contextlib.contextmanager
def _receiver(host: Host, port: int, file: Path) -> Iterator[None]:
    """It ends by itself; the context ends with it."""
    with host.running(*_words("receive", str(port), str(file))) as process:
        wait_until("the probe's receiver", lambda: f":{port} " in host.run("ss", "-Hlun"), process)
        yield
        if process.wait(FIRST_S + QUIET_S):
            raise DemoError("the probe's receiver")  # its own words are added


# --- the program --------------------------------------------------------------------------------------------


def content(number: int) -> bytes:
    """What a datagram has behind its stamp."""
    return random.Random(number).randbytes(DATAGRAM_BYTES - STAMP.size)


def send(address: str, port: int) -> None:
    """One datagram each INTERVAL_NS; what is late is made up for."""
    contents = [content(number) for number in range(COUNT)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.connect((address, port))
        begun_ns = time.monotonic_ns()
        for number, behind in enumerate(contents):
            time.sleep(max(0, begun_ns + number * INTERVAL_NS - time.monotonic_ns()) / 1e9)
            flow.send(STAMP.pack(number, time.monotonic_ns()) + behind)


def receive(port: int, file: Path) -> None:
    """Until nothing has come for a while. Writes Delays."""
    came: list[tuple[int, int, bytes]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
        flow.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        flow.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        flow.bind(("", port))
        flow.settimeout(FIRST_S)
        with contextlib.suppress(TimeoutError):
            while True:
                datagram, notes, _, _ = flow.recvmsg(DATAGRAM_BYTES + 1, 64)
                came.append((time.monotonic_ns(), notes[0][2][0], datagram))
                flow.settimeout(QUIET_S)
    file.write_text(json.dumps(vars(delays(came))))


def delays(came: Sequence[tuple[int, int, bytes]]) -> Delays:
    """Of (time, TOS, datagram). ValueError: a datagram that came twice, or is not what was sent."""
    found: dict[int, list[int]] = {0: [], REPAIR_TOS: []}
    numbers = set()
    for time_ns, tos, datagram in came:
        number, sent_ns = STAMP.unpack_from(datagram)
        if number in numbers or datagram[STAMP.size :] != content(number):
            raise ValueError(f"datagram {number} came twice, or other than it was sent")
        numbers.add(number)
        found[tos].append(time_ns - sent_ns)
    return Delays(*map(sorted, found.values()))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["send", address, port]:
            send(address, int(port))
        case ["receive", port, file]:
            receive(int(port), Path(file))
