"""Where the benchmarks run: two hosts on one wire, a counting sink, a bounded sender, and engines on a queue.

    host a: sender -> OUTPUT -> queue -> engine -> device (DeviceSink) -> veth -> host b (HostSink)

An engine's CPU is the time the scheduler gave to all threads of its process, in nanoseconds, taken from
outside, so that every engine is measured by the same ruler. It contains what the kernel does in the engine's
system calls: the packet's way on through the network stack.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from layer45 import control_client
from layer45.cgroups import Cgroups
from layer45.control_messages import Request, Stats, Status
from layer45.errors import Layer45Error
from tests.netns.topology import Host, Hosts

HERE = Path(__file__).parent
SCRATCH = HERE / "results" / "scratch"
PORT = 9000
POLICY = "bench"
FIRST_QUEUE = 4500
START_TIMEOUT_S = 20.0
TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A run whose counters do not add up, or that could not start: no figure comes from it."""


@dataclass(frozen=True)
class Load:
    """What the sender sends."""

    packets: int
    packet_bytes: int = 64
    burst: int = 64
    rate: int = (
        100_000  # packets a second; 0: as fast as it goes, and no faster than the socket's buffer allows
    )
    flows: int = 1  # to so many addresses, from the given one on
    order: str = "turn"  # of flows: one after the other, or "random"


def compiled(name: str, suffix: str = "", *options: str) -> Path:
    """The program made from perf/NAME.c, compiled when the source is newer. options: more of them for gcc."""
    source, program = HERE / f"{name}.c", SCRATCH / f"{name}{suffix}"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        SCRATCH.mkdir(parents=True, exist_ok=True)
        unfinished = program.with_name(f".{program.name}.{os.getpid()}")  # somebody else may be at it too
        words = ["gcc", "-O3", "-Wall", "-Wextra", *options, "-o", str(unfinished), str(source)]
        subprocess.run(words, check=True)
        unfinished.replace(program)
    return program


def send(host: Host, to: str, load: Load) -> dict[str, int]:
    """Send the load from host: sent, elapsed_ns, cpu_ns."""
    words = [to, PORT, load.packets, load.packet_bytes, load.burst, load.rate, load.flows, load.order]
    done = host.run([str(compiled("sender")), *map(str, words)], timeout=300)
    return dict(json.loads(done.stdout))


class Sink(Protocol):
    """Where the packets end, counted. No receiver, no replies."""

    def packets(self) -> int:
        """Packets counted since the last call."""
        ...


class DeviceSink:
    """Packets end in the transmit queue of host a's device, which has room for none.

    The engine pays for the way down to the device, and not for a receiver on its own processor.
    """

    def __init__(self, hosts: Hosts) -> None:
        self.host, self.seen = hosts.a, 0
        self.host.run(
            ["sysctl", "-qw", f"net.ipv6.conf.{hosts.a.device}.disable_ipv6=1"]
        )  # it sends by itself
        peer = json.loads(hosts.b.run(["ip", "-j", "link", "show", hosts.b.device]).stdout)[0]["address"]
        words = ["replace", hosts.b.ipv4, "lladdr", peer, "dev", self.host.device, "nud", "permanent"]
        self.host.run(["ip", "neigh", *words])
        self.host.run(["tc", "qdisc", "add", "dev", self.host.device, "root", "pfifo", "limit", "0"])

    def packets(self) -> int:
        """Packets counted since the last call."""
        words = ["tc", "-j", "-s", "qdisc", "show", "dev", self.host.device, "root"]
        before, self.seen = self.seen, json.loads(self.host.run(words).stdout)[0]["drops"]
        return int(self.seen - before)


class HostSink:
    """Packets end where host b's raw PREROUTING counts and drops them.

    The engine pays for half of the receiver too: a veth pair hands packets over in the sender's context.
    """

    def __init__(self, hosts: Hosts) -> None:
        self.host = hosts.b
        rule = f"-t raw -A PREROUTING -p udp --dport {PORT} -j DROP"
        self.host.run(["iptables", *rule.split()])
        warm(hosts)

    def packets(self) -> int:
        """Packets counted since the last call."""
        listing = self.host.run(["iptables", "-t", "raw", "-Z", "-vxnL", "PREROUTING"]).stdout
        return sum(int(line.split()[0]) for line in listing.splitlines() if "DROP" in line)


@dataclass(frozen=True)
class QueueCounts:
    """A queue as the kernel counts it."""

    queued: int
    dropped: int
    waiting: int


def queues(host: Host) -> dict[int, QueueCounts]:
    """All queues of a host, by number."""
    listing = host.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout
    rows = [list(map(int, line.split())) for line in listing.splitlines()]
    return {row[0]: QueueCounts(row[7], row[5] + row[6], row[2]) for row in rows}


def queue_counts(host: Host) -> QueueCounts:
    """All queues of a host, summed; nothing queued where there is none."""
    found = queues(host).values()
    return QueueCounts(
        sum(each.queued for each in found),
        sum(each.dropped for each in found),
        sum(each.waiting for each in found),
    )


def wait_until_empty(host: Host) -> None:
    """Until every queue of a host is empty: what was sent before has been answered."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while queue_counts(host).waiting:
        if time.monotonic() > deadline:
            raise BenchmarkError("the queue does not get empty")
        time.sleep(0.02)


def wait_for_queue(host: Host, process: subprocess.Popen[Any]) -> None:
    """Until somebody listens on a queue of the host."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not host.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout:
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchmarkError(f"{' '.join(map(str, process.args))}: no queue was opened")  # type: ignore[arg-type]
        time.sleep(0.02)


def wait_for_ports(host: Host, ports: Iterable[int], process: subprocess.Popen[Any] | None = None) -> None:
    """Until somebody listens on all of them, TCP or UDP. process: who is to."""
    deadline = time.monotonic() + START_TIMEOUT_S
    missing = list(ports)
    while missing:
        if time.monotonic() > deadline or (process is not None and process.poll() is not None):
            raise BenchmarkError(f"{host.name}: nobody listens on port {missing[0]}")
        time.sleep(0.02)
        listing = host.run(["ss", "-Hlntu"]).stdout
        missing = [port for port in missing if f":{port} " not in listing]


def turned(names: Iterable[str], turn: int) -> list[str]:
    """The names, begun with another one in each turn."""
    listed = list(names)
    start = turn % len(listed)
    return listed[start:] + listed[:start]


def cpu_ns(pid: int) -> int:
    """Time on a CPU of every thread of a process, user and kernel, since it began."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def busy_ns() -> int:
    """Time that processors were busy, all together, since the machine began; roughly: a tick counts it."""
    user, nice, system, _idle, _waiting, *rest = _processor_ticks()
    return (user + nice + system + sum(rest)) * TICK_NS


def softirq_ns() -> tuple[int, int]:
    """Time that processors spent in soft interrupts, so; and in ksoftirqd, exactly, where it can be seen.

    Most soft interrupts run in somebody's system call, and are in that one's time as well.
    """
    threads = (path for path in Path("/proc").glob("[0-9]*/comm") if _read(path).startswith("ksoftirqd/"))
    inside = sum(int(_read(path.with_name("schedstat")).split()[0]) for path in threads)
    return _processor_ticks()[6] * TICK_NS, inside


def _processor_ticks() -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal: all processors together."""
    return list(map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]))


def _read(path: Path) -> str:
    """What is in a process's file; nothing when it has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _end(process: subprocess.Popen[Any]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def rules(host: Host, config: Path) -> str:
    """What `layer45 rules` prints for IPv4, in iptables-restore's language."""
    words = layer45("rules", "--backend", "iptables", "--config", str(config))
    return str(host.run(words).stdout).partition("# ip6tables")[0]


@contextlib.contextmanager
def yardstick(host: Host, argv: list[str], config: Path) -> Iterator[subprocess.Popen[Any]]:
    """A program other than ours on FIRST_QUEUE, behind the rules of a configuration.

    The little that the program says at its end is in its stdout, which stays open.
    """
    cgroups = Cgroups(cgroup_root(config.name))
    cgroups.prepare(POLICY)  # a rule names it
    host.run(["iptables-restore", "--noflush"], input=rules(host, config))
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
    process = host.popen(argv, stdout=subprocess.PIPE, stderr=log, cwd=HERE.parent)
    try:
        wait_for_queue(host, process)
        yield process
    finally:
        _end(process)
        log.close()
        for table in ("raw", "mangle", "filter", "nat"):
            host.run(["iptables", "-t", table, "-F"], check=False)
            host.run(["iptables", "-t", table, "-X"], check=False)
        cgroups.close()


def cgroup_root(name: str) -> str:
    """Where the daemon of a configuration directory of that name puts programs; nobody else's."""
    return f"layer45-perf-{os.getpid()}-{name}"


def write_config(
    directory: Path, chain: str, match: str, path: str = "queue", /, **settings: int | str
) -> Path:
    """A configuration with one policy; chain and match are in TOML. settings: further ones of the daemon.

    path: the policy's; "auto" lets packets take a shorter way than the queue, where one does the same.
    """
    (directory / "policies").mkdir(parents=True)
    (directory / "layer45.toml").write_text(
        f'control_socket = "{directory}/control.sock"\nfirst_queue = {FIRST_QUEUE}\n'
        f'cgroup_root = "{cgroup_root(directory.name)}"\nbackend = "iptables"\n'
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    )
    (directory / "policies" / "bench.toml").write_text(
        f'[policy.{POLICY}]\nsummary = "benchmark"\nmatch = {match}\nchain = {chain}\npath = "{path}"\n'
    )
    return directory


def layer45(*words: str) -> list[str]:
    """A command line of ours, in this interpreter."""
    return [sys.executable, "-m", "layer45", *words]


@contextlib.contextmanager
def daemon(host: Host, config: Path, program: Sequence[str] | None = None) -> Iterator[subprocess.Popen[Any]]:
    """`layer45 run` in a host, ready for packets. program: what stands in for `layer45`."""
    log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
    words = ["run", "--config", str(config)]
    process = host.popen([*program, *words] if program else layer45(*words), stdout=log, stderr=log)
    try:
        _wait_until_ready(config, process, log)
        yield process
    finally:
        _end(process)
        log.close()


def _wait_until_ready(config: Path, process: subprocess.Popen[Any], log: Any) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(Layer45Error):
            _ask(config, Status())
            return
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            raise BenchmarkError(f"layer45 run did not get ready: {log.read().strip()[-500:]}")
        time.sleep(0.02)


def _ask(config: Path, request: Request) -> Any:
    return control_client.ask(config / "control.sock", request, config)


def counters(config: Path) -> dict[str, int]:
    """The engine's, as `layer45 stats --json` says them."""
    return dict(_ask(config, Stats())["engine"])


def warm(hosts: Hosts) -> None:
    """Resolve the neighbour, so that the first packet of a run does not wait for it."""
    hosts.a.run(["bash", "-c", f"exec 3<>/dev/udp/{hosts.b.ipv4}/9; echo >&3; sleep 0.1"], check=False)
