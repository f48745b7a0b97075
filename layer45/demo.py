r"""`make demo`: an unmodified program under a policy, and the same program beside it that nobody touches.

        host a                                                   host b
    iperf3 under `layer45 exec demo` -> engine -\            /-> engine -> iperf3 server, port 5201
                                                 veth, tcpdump
    iperf3, plain ------------------------------/            \-----------> iperf3 server, port 5202

Both run at the same time. What the applications saw, what was on the wire and what the engines counted must
agree to the packet, or the demo fails. It needs root, takes some ten seconds, and leaves nothing behind.
"""

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from layer45.demo_hosts import (
    ADDRESSES,
    CHAIN,
    IDENTITY,
    DemoError,
    Host,
    daemon,
    end_of,
    two_hosts,
    wait_until,
    write_config,
)

SECONDS = 4
RATE = "20M"
DATAGRAM_BYTES = 1200
CUSTOMIZED, PLAIN = 5201, 5202  # ports
TAG_FIXED_BYTES = 12  # behind the identity: "LT", version, length, check, sequence


@contextlib.contextmanager
def server(host: Host, port: int) -> Iterator[None]:
    """iperf3 as it comes."""
    with host.running("iperf3", "-s", "-p", str(port)) as process:
        wait_until("iperf3 -s", lambda: f":{port} " in host.run("ss", "-Hltn"), process)
        yield


@contextlib.contextmanager
def recorded(host: Host, path: Path) -> Iterator[None]:
    """tcpdump on a host's wire."""
    words = [
        "tcpdump",
        "-Z",
        "root",
        "-Un",
        "--immediate-mode",
        "-B",
        "65536",
        "-i",
        "eth0",
        "-w",
        str(path),
        "udp",
    ]
    with host.running(*words, end=signal.SIGINT) as process:
        wait_until("tcpdump", lambda: path.exists() and path.stat().st_size >= 24, process)
        yield
        time.sleep(0.5)  # what is on its way to tcpdump


def client(port: int) -> list[str]:
    """iperf3 as it comes: UDP, results as JSON."""
    words = [
        "-c",
        ADDRESSES["b"],
        "-p",
        str(port),
        "-u",
        "-b",
        RATE,
        "-l",
        str(DATAGRAM_BYTES),
        "-t",
        str(SECONDS),
        "-J",
    ]
    return ["iperf3", *words]


def both_flows(a: Host) -> dict[int, dict[str, Any]]:
    """Runs the two clients at the same time; what each application saw, by port."""
    commands = {CUSTOMIZED: a.layer45("exec", "demo", "--", *client(CUSTOMIZED)), PLAIN: client(PLAIN)}
    with contextlib.ExitStack() as stack:
        running = {}
        for port, words in commands.items():
            process = subprocess.Popen(
                a.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.callback(end_of, process, signal.SIGTERM)
            running[port] = process
        outputs = {port: process.communicate(timeout=SECONDS + 30) for port, process in running.items()}
    return {port: _report(*output) for port, output in outputs.items()}


def _report(output: str, errors: str) -> dict[str, Any]:
    try:
        report = json.loads(output)
    except ValueError:
        raise DemoError(f"iperf3: {(errors or output).strip()[-300:]}") from None
    if "error" in report:
        raise DemoError(f"iperf3: {report['error']}")
    return dict(report["end"]["sum"])


def payloads(path: Path) -> dict[int, list[bytes]]:
    """UDP payloads of a capture that go to each of the two ports (IPv4 behind Ethernet, no options)."""
    found: dict[int, list[bytes]] = {CUSTOMIZED: [], PLAIN: []}
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


def checksum_errors(host: Host) -> int:
    """UDP and TCP packets that a host refused for their checksum."""
    rows = [line.split() for line in host.run("cat", "/proc/net/snmp").splitlines()]
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return sum(int(values[names.index("InCsumErrors")]) for names, values in pairs if "InCsumErrors" in names)


@dataclass(frozen=True)
class Seen:
    """All that was observed."""

    applications: dict[int, dict[str, Any]]
    wire: dict[int, list[bytes]]
    stats: dict[str, dict[str, Any]]  # by host
    checksum_errors: int

    def engine(self, host: str, counter: str) -> int:
        return int(self.stats[host]["engine"][counter])

    def module(self, host: str, name: str, counter: str) -> int:
        instances = self.stats[host]["policies"]["demo"]["instances"]
        return int(next(each["counters"][counter] for each in instances if each["module"] == name))


def observe() -> Seen:
    """The demo itself."""
    with tempfile.TemporaryDirectory(prefix="layer45-demo-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        a, b = stack.enter_context(two_hosts(folder))
        write_config(a, "")
        write_config(b, f'match = {{ protocol = "udp", local_port = {CUSTOMIZED} }}\n')
        for host in (a, b):
            stack.enter_context(daemon(host))
        for port in (CUSTOMIZED, PLAIN):
            stack.enter_context(server(b, port))
        with recorded(b, folder / "wire.pcap"):
            applications = both_flows(a)
        return Seen(
            applications,
            payloads(folder / "wire.pcap"),
            {host.letter: json.loads(host.run(*host.layer45("stats", "--json"))) for host in (a, b)},
            checksum_errors(a) + checksum_errors(b),
        )


def judge(seen: Seen) -> None:
    """Raises DemoError for the first thing that is not as it should be."""
    marked = [sum(map(tagged, seen.wire[port])) for port in (CUSTOMIZED, PLAIN)]
    sent = len(seen.wire[CUSTOMIZED])
    expected = [
        ("datagrams the customized iperf3 lost", seen.applications[CUSTOMIZED]["lost_packets"], 0),
        ("datagrams the plain iperf3 lost", seen.applications[PLAIN]["lost_packets"], 0),
        ("datagrams of the customized flow with a tag on the wire", marked[0], sent),
        ("datagrams of the plain flow with a tag on the wire", marked[1], 0),
        ("datagrams tagged by host a", seen.module("a", "tag", "tagged"), sent),
        ("tags checked and removed by host b", seen.module("b", "tag", "stripped"), sent),
        ("sequence numbers missing at host b", seen.module("b", "tag", "gaps"), 0),
        ("checksum errors", seen.checksum_errors, 0),
    ]
    for host in "ab":
        answered = sum(seen.engine(host, name) for name in ("passed", "rewritten", "dropped", "held"))
        expected.append(
            (f"packets answered by the engine of host {host}", answered, seen.engine(host, "received"))
        )
    for what, found, wanted in expected:
        if found != wanted:
            raise DemoError(f"{what}: {found}, expected {wanted}")
    if sent < seen.applications[CUSTOMIZED]["packets"]:
        raise DemoError(
            f"{sent} datagrams on the wire, but {seen.applications[CUSTOMIZED]['packets']} were sent"
        )


def hex_line(payload: bytes) -> Text:
    """The first bytes and the last ones of a payload, the tag marked."""
    cut = len(payload) - TAG_FIXED_BYTES - len(IDENTITY)
    line = Text(f"{payload[:12].hex(' ')} … {payload[cut - 4 : cut].hex(' ')} ")
    line.append(payload[cut:].hex(" "), style="bold reverse green" if tagged(payload) else "")
    if tagged(payload):
        line.append(f"  {IDENTITY.decode()}, number {int.from_bytes(payload[-4:])}", style="green")
    return line


def report(seen: Seen) -> None:
    """What happened, for people."""
    console = Console(highlight=False)
    console.print(f"\npolicy demo, chain = {CHAIN}", markup=False, style="bold")
    table = Table("what the application saw", "under the policy", "beside it")
    flows = [seen.applications[port] for port in (CUSTOMIZED, PLAIN)]
    table.add_row("datagrams sent", *(str(flow["packets"]) for flow in flows))
    table.add_row("datagrams lost", *(str(flow["lost_packets"]) for flow in flows))
    table.add_row("Mbit/s", *(f"{flow['bits_per_second'] / 1e6:.2f}" for flow in flows))
    table.add_row("jitter, ms", *(f"{flow['jitter_ms']:.3f}" for flow in flows))
    marks = (sum(map(tagged, seen.wire[port])) for port in (CUSTOMIZED, PLAIN))
    table.add_row("… with a tag on the wire, the greeting included", *map(str, marks))
    console.print(table)
    for port, name in ((CUSTOMIZED, "under the policy"), (PLAIN, "beside it")):
        middle = seen.wire[port][len(seen.wire[port]) // 2]
        console.print(f"on the wire, {name} (port {port}): {len(middle)} bytes of payload")
        console.print(Text("   ") + hex_line(middle), soft_wrap=True)
    for host in "ab":
        counters = ", ".join(
            f"{name} {seen.engine(host, name)}"
            for name in ("received", "rewritten", "passed", "dropped", "held")
        )
        console.print(f"engine of host {host}: {counters}")
    console.print(f"checksum errors: {seen.checksum_errors}\n")


def _stopped(*_: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # cleaning up is not to be interrupted
    raise KeyboardInterrupt


def main() -> int:
    """0, or 1 with one line on stderr."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    if os.geteuid():
        print("demo: needs root: sudo make demo", file=sys.stderr)
        return 1
    print(f"demo: two hosts, two iperf3 at the same time, {SECONDS} seconds …", flush=True)
    try:
        seen = observe()
        judge(seen)
    except (DemoError, OSError, subprocess.TimeoutExpired) as error:
        print(f"demo: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130
    report(seen)
    print(
        "demo: every datagram arrived as it was sent; the policy's flow was tagged, the other one untouched"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
