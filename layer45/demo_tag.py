r"""The demo's first scene: who sent it, in every datagram, and nothing else is touched.

        host a                                                   host b
    iperf3 under `layer45 exec demo` -> engine -\            /-> engine -> iperf3 server, port 5201
                                                 veth, tcpdump
    iperf3, plain ------------------------------/            \-----------> iperf3 server, port 5202

What the applications saw, what was on the wire and what the engines counted must agree to the packet.
"""

import contextlib
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from layer45.demo_hosts import (
    DemoError,
    Host,
    Stats,
    agree,
    checksum_errors,
    full_sockets,
    stats,
    under_policy,
    wait_until,
)
from layer45.demo_iperf import CUSTOMIZED, PLAIN, PORTS, Flow, both_flows, servers

SECONDS = 4
IDENTITY = b"host-7"
CHAIN = f"""[
    {{ module = "scramble", key = "layer 4.5 in action" }},
    {{ module = "tag", id = "{IDENTITY.decode()}" }},
]"""
TAG_FIXED_BYTES = 12  # behind the identity: "LT", version, length, check, sequence
CAPTURE = ["tcpdump", "-Z", "root", "-Un", "--immediate-mode", "-B", "65536", "-i", "eth0"]


@dataclass(frozen=True)
class Seen:
    """All that was observed; a and b: the hosts' engines."""

    applications: dict[int, Flow]
    wire: dict[int, list[bytes]]
    a: Stats
    b: Stats
    checksum_errors: int
    full_sockets: int


def play(console: Console) -> None:
    """Raises DemoError for what is not as it should be."""
    console.print(f"demo: two hosts, two iperf3 at the same time, {SECONDS} seconds …")
    seen = observe()
    judge(seen)
    report(seen, console)
    console.print("demo: every datagram arrived as it was sent; those under the policy had a tag\n")


def observe() -> Seen:
    with under_policy("Scrambled, and tagged with who sent it", CHAIN, CUSTOMIZED) as (a, b, folder):
        with servers(b), recorded(b, folder / "wire.pcap"):
            applications = both_flows(a, SECONDS)
        wire = payloads(folder / "wire.pcap")
        errors = checksum_errors(a) + checksum_errors(b)
        return Seen(applications, wire, stats(a), stats(b), errors, full_sockets(b))


@contextlib.contextmanager
def recorded(host: Host, path: Path) -> Iterator[None]:
    """tcpdump on a host's wire."""
    with host.running(*CAPTURE, "-w", str(path), "udp", end=signal.SIGINT) as process:
        wait_until("tcpdump", lambda: path.exists() and path.stat().st_size >= 24, process)
        yield
        time.sleep(0.5)  # what is on its way to tcpdump


def payloads(path: Path) -> dict[int, list[bytes]]:
    """UDP payloads of a capture that go to each of the two ports (IPv4 behind Ethernet, no options)."""
    found: dict[int, list[bytes]] = {port: [] for port in PORTS}
    content, at = path.read_bytes(), 24
    while at < len(content):
        (count,) = struct.unpack_from("=I", content, at + 8)
        packet = content[at + 16 + 14 : at + 16 + count]
        (port,) = struct.unpack_from("!H", packet, 22)
        if port in found:
            found[port].append(packet[28 : int.from_bytes(packet[2:4])])
        at += 16 + count
    return found


def tagged(payload: bytes) -> bool:
    """Whether a payload ends in our tag."""
    tail = payload[-TAG_FIXED_BYTES - len(IDENTITY) :]
    return tail[: len(IDENTITY) + 2] == IDENTITY + b"LT"


def judge(seen: Seen) -> None:
    """Raises DemoError for the first thing that is not as it should be."""
    marked = [sum(map(tagged, seen.wire[port])) for port in PORTS]
    sent, tag = len(seen.wire[CUSTOMIZED]), seen.b.module("tag")
    agree(
        [
            ("datagrams for which iperf3, on a busy machine, had no room", seen.full_sockets, 0),
            ("datagrams the customized iperf3 lost", seen.applications[CUSTOMIZED].lost, 0),
            ("datagrams the plain iperf3 lost", seen.applications[PLAIN].lost, 0),
            ("datagrams of the customized flow with a tag on the wire", marked[0], sent),
            ("datagrams of the plain flow with a tag on the wire", marked[1], 0),
            ("datagrams tagged by host a", seen.a.module("tag")["tagged"], sent),
            ("tags checked and removed by host b", tag["stripped"], sent),
            ("sequence numbers missing at host b", tag["gaps"], 0),
            ("checksum errors", seen.checksum_errors, 0),
            ("packets answered by the engine of host a", seen.a.answered, seen.a.engine("received")),
            ("packets answered by the engine of host b", seen.b.answered, seen.b.engine("received")),
        ]
    )
    if sent < seen.applications[CUSTOMIZED].sent:
        raise DemoError(f"{sent} datagrams on the wire, but {seen.applications[CUSTOMIZED].sent} were sent")


def hex_line(payload: bytes) -> Text:
    """The first bytes and the last ones of a payload, the tag marked."""
    cut = len(payload) - TAG_FIXED_BYTES - len(IDENTITY)
    line = Text(f"{payload[:12].hex(' ')} … {payload[cut - 4 : cut].hex(' ')} ")
    line.append(payload[cut:].hex(" "), style="bold reverse green" if tagged(payload) else "")
    if tagged(payload):
        line.append(f"  {IDENTITY.decode()}, number {int.from_bytes(payload[-4:])}", style="green")
    return line


def report(seen: Seen, console: Console) -> None:
    """What happened, for people."""
    console.print(f"\npolicy demo, chain = {CHAIN}", markup=False, style="bold")
    table = Table("what the application saw", "under the policy", "beside it")
    flows = [seen.applications[port] for port in PORTS]
    table.add_row("datagrams sent", *(str(flow.sent) for flow in flows))
    table.add_row("datagrams lost", *(str(flow.lost) for flow in flows))
    table.add_row("Mbit/s", *(f"{flow.bits_per_s / 1e6:.2f}" for flow in flows))
    table.add_row("jitter, ms", *(f"{flow.jitter_ms:.3f}" for flow in flows))
    marks = (sum(map(tagged, seen.wire[port])) for port in PORTS)
    table.add_row("… with a tag, on the wire", *map(str, marks))
    console.print(table)
    for port, name in ((CUSTOMIZED, "under the policy"), (PLAIN, "beside it")):
        middle = seen.wire[port][len(seen.wire[port]) // 2]
        console.print(f"on the wire, {name} (port {port}): {len(middle)} bytes of payload")
        console.print(Text("   ") + hex_line(middle), soft_wrap=True)
    console.print(f"engine of host a: {seen.a}\nengine of host b: {seen.b}", soft_wrap=True)
    console.print(f"checksum errors: {seen.checksum_errors}\n")
