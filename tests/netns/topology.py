"""Two hosts on one wire, each a network namespace; everything is gone when the context ends, also on failure.

        host a                                        host b
    +--------------------+                        +--------------------+
    | lo                 |                        |                 lo |
    | eth0 10.77.0.1/24  |--------- veth ---------| eth0 10.77.0.2/24  |
    |      fd77::1/64    |                        |      fd77::2/64    |
    | 02:00:00:00:00:01  |                        | 02:00:00:00:00:02  |
    +--------------------+                        +--------------------+

The names of the namespaces carry our pid, so runs side by side do not meet.
Addresses are usable at once (no duplicate address detection), the hosts know each other's link addresses:
nothing is on the wire but what a test sends, and nothing waits.

    with two_hosts() as hosts:
        hosts.b.popen(["iperf3", "-s"])                  # killed at the end
        hosts.a.run(["ping", "-c1", hosts.b.ipv4])       # raises CalledProcessError when it fails
        with hosts.a.socket(AF_INET, SOCK_DGRAM) as s: ...   # of this process, but in the namespace
        with hosts.b.capture("udp") as capture: ...
        capture.packets()                                # Scapy packets
        assert hosts.b.checksum_errors() == {"udp4": 0, "tcp": 0, "udp6": 0}
"""

import array
import contextlib
import ctypes
import fcntl
import io
import itertools
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMESPACES = Path("/run/netns")
DEVICE = "eth0"
CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
ETHTOOL_SET_TX_CHECKSUM, ETHTOOL_SET_TSO, ETHTOOL_SET_GSO, ETHTOOL_SET_GRO = 0x17, 0x1F, 0x24, 0x2C

_serial = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Capture:
    """What tcpdump saw; read it after the context has ended."""

    path: Path
    content: bytes = b""  # of the pcap file

    def packets(self) -> list[Any]:
        """The captured packets, as Scapy objects from the link layer up."""
        import scapy.layers.inet6  # noqa: F401  knows what is on a wire
        from scapy.utils import rdpcap

        return list(rdpcap(io.BytesIO(self.content)))


@dataclass
class Host:
    """One namespace, its addresses, and the processes started in it."""

    name: str
    ipv4: str
    ipv6: str
    mac: str
    device: str = DEVICE
    started: list[subprocess.Popen[Any]] = field(default_factory=list)

    def address(self, family: int) -> str:
        """The address on the wire, of AF_INET or AF_INET6."""
        return self.ipv6 if family == socket.AF_INET6 else self.ipv4

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs argv in this host; nsenter leaves /sys, and so the cgroups, in sight."""
        return ["nsenter", f"--net={NAMESPACES / self.name}", "--", *map(str, argv)]

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run to the end, output captured as text; subprocess.run's options may change each of this."""
        options = {"check": True, "capture_output": True, "text": True, "timeout": 60} | options
        return subprocess.run(self.inside(argv), **options)

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a program, in a session of its own; it is killed with its children when the hosts go."""
        options = {"text": True, "start_new_session": True} | options
        process = subprocess.Popen(self.inside(argv), **options)
        self.started.append(process)
        return process

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread (no other) is in this host's network namespace."""
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _set_namespace(NAMESPACES / self.name)
            yield
        finally:
            if _libc.setns(back, CLONE_NEWNET):
                os._exit(70)  # no test may go on in the wrong namespace
            os.close(back)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this process that lives in this host."""
        with self.entered():
            return socket.socket(family, kind, protocol)

    def checksum_errors(self) -> dict[str, int]:
        """Packets dropped for a bad checksum since the host exists: udp4, udp6, and tcp (both families)."""
        snmp = self.run(["cat", "/proc/net/snmp"]).stdout
        snmp6 = dict(line.split() for line in self.run(["cat", "/proc/net/snmp6"]).stdout.splitlines())
        return {
            "udp4": _snmp(snmp, "Udp")["InCsumErrors"],
            "tcp": _snmp(snmp, "Tcp")["InCsumErrors"],
            "udp6": int(snmp6["Udp6InCsumErrors"]),
        }

    def set_offloads(self, enabled: bool) -> None:
        """Turn transmit checksum and segmentation offload of eth0 on or off.

        On (the default of veth) packets cross without a checksum and none is checked; off is a real wire.
        """
        for command in (ETHTOOL_SET_TX_CHECKSUM, ETHTOOL_SET_TSO, ETHTOOL_SET_GSO, ETHTOOL_SET_GRO):
            self.set_offload(command, enabled)

    def set_offload(self, command: int, enabled: bool) -> None:
        """Turn one on or off. Without TSO at the sender, GRO puts together what comes, as with a card."""
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            value = array.array("I", [command, int(enabled)])
            request = struct.pack("16sP", self.device.encode(), value.buffer_info()[0])
            fcntl.ioctl(control, SIOCETHTOOL, request.ljust(40, b"\0"))

    @contextlib.contextmanager
    def capture(self, expression: str = "", device: str = DEVICE) -> Iterator[Capture]:
        """Record what passes `device` while the context lasts."""
        handle, path = tempfile.mkstemp(suffix=".pcap", prefix=self.name)
        os.close(handle)
        room = ["-B", "65536", "-s", "65600"]  # KiB; -s0 would make it eight frames of 256 KiB, and lose some
        argv = ["tcpdump", "-Z", "root", "-Unn", "--immediate-mode", *room, "-i", device, "-w", path]
        recorder = self.popen([*argv, *expression.split()], stderr=subprocess.PIPE)
        assert recorder.stderr is not None
        capture = Capture(Path(path))
        try:
            _wait_for_line(recorder, "listening on")
            yield capture
            time.sleep(0.2)  # what is on its way to tcpdump
        finally:
            _stop(recorder, signal.SIGINT)
            recorder.stderr.close()
            capture.content = capture.path.read_bytes()
            capture.path.unlink()

    def stop_processes(self) -> None:
        """Kill whatever was started in here and what it left behind."""
        for process in self.started:
            _stop(process, signal.SIGKILL)
        left = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True).stdout
        for pid in set(map(int, left.split())) - {os.getpid()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@dataclass
class Hosts:
    """The two ends."""

    a: Host
    b: Host

    def __iter__(self) -> Iterator[Host]:
        return iter((self.a, self.b))


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Build the picture above, and take it down. Needs root."""
    tag = f"l45-{os.getpid()}-{next(_serial)}"
    hosts = Hosts(
        Host(f"{tag}-a", "10.77.0.1", "fd77::1", "02:00:00:00:00:01"),
        Host(f"{tag}-b", "10.77.0.2", "fd77::2", "02:00:00:00:00:02"),
    )
    try:
        for host in hosts:
            _ip("netns", "add", host.name)
        _ip("-n", hosts.a.name, "link", "add", DEVICE, "type", "veth",
            "peer", "name", DEVICE, "netns", hosts.b.name)  # fmt: skip
        for host, other in ((hosts.a, hosts.b), (hosts.b, hosts.a)):
            _bring_up(host)
            _introduce(host, other)
        for host in hosts:
            _wait_for_carrier(host)
        yield hosts
    finally:
        for host in hosts:
            host.stop_processes()
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True, check=False)


def _bring_up(host: Host) -> None:
    _ip("-n", host.name, "link", "set", "lo", "up")
    _ip("-n", host.name, "address", "add", f"{host.ipv4}/24", "dev", DEVICE)
    _ip("-n", host.name, "address", "add", f"{host.ipv6}/64", "dev", DEVICE, "nodad")
    _ip("-n", host.name, "link", "set", DEVICE, "address", host.mac, "up")


def _introduce(host: Host, other: Host) -> None:
    for address in (other.ipv4, other.ipv6):
        _ip("-n", host.name, "neighbor", "replace", address, "lladdr", other.mac, "dev", DEVICE)


def _wait_for_carrier(host: Host) -> None:
    deadline = time.monotonic() + 10
    while "state UP" not in host.run(["ip", "-oneline", "link", "show", DEVICE]).stdout:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{host.name}: {DEVICE} has no carrier")
        time.sleep(0.01)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _set_namespace(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(handle, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(handle)


def _snmp(text: str, protocol: str) -> dict[str, int]:
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith(f"{protocol}:"))
    return dict(zip(names, map(int, values), strict=True))


def _wait_for_line(process: subprocess.Popen[Any], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    raise RuntimeError(f"{process.args!r}: ended before it said {text!r}")


def _stop(process: subprocess.Popen[Any], how: int) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)
