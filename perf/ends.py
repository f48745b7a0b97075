"""What stands at both ends of the wire: nobody, a yardstick, or a daemon with a chain; and what went through.

    host a: client -> OUTPUT -> queue -> engine -> veth -> INPUT -> queue -> engine -> server: host b
                      INPUT  <- queue <- engine <- veth <- OUTPUT <- queue <- engine

All engines stand behind the rules that `layer45 rules` prints for the policy, one queue a host for both
directions. What a queue did is told by three who do not ask each other: the rules count packets and bytes
that they send to a queue, the kernel packets that it queued, a daemon both that it got. Where a chain gets
copies (NFLOG) the rules' bytes are those, and nothing is queued.
"""

import contextlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from layer45.chain_properties import HEADER_BYTES
from perf import lab
from perf.processors import Placement
from perf.serving import EMPTY, PYTHON_CALLBACK
from tests.netns.topology import Host, Hosts

WHOLE = 0.99  # of the bytes; what is lost at the end of a run, when its sockets are closed, is far less
FIRST = 0.1  # of the bytes, at most, where a chain is done with a flow
SETTLE_S = 2.0  # a copy may wait a second in the kernel
SENT_BY_RULES = re.compile(r"^\[(\d+):(\d+)\] .* -j (NFQUEUE|NFLOG) ", re.MULTILINE)


@dataclass(frozen=True)
class Traffic:
    """What the policies take: these protocols, on these ports of host b."""

    protocols: tuple[str, ...]
    ports: tuple[int, ...]

    def match(self, host: Host, hosts: Hosts) -> str:
        """A policy's match, in TOML: the ports are remote at host a and local at b."""
        end = "remote_port" if host is hosts.a else "local_port"
        return f"{{ protocol = {json.dumps(self.protocols)}, {end} = {json.dumps(self.ports)} }}"


@dataclass(frozen=True)
class End:
    """An engine at work. config: the directory of a daemon of ours."""

    host: Host
    pid: int
    config: Path | None = None


Ends = list[End]
Engine = Callable[[Hosts, Traffic], contextlib.AbstractContextManager[Ends]]


@contextlib.contextmanager
def nobody(_: Hosts, __: Traffic) -> Iterator[Ends]:
    """No rule, no queue."""
    yield []


@contextlib.contextmanager
def conntrack(hosts: Hosts, _: Traffic) -> Iterator[Ends]:
    """No queue, but at each end a rule that asks conntrack, as a host with a stateful firewall has some."""
    rule = ["INPUT", "-m", "conntrack", "--ctstate", "INVALID", "-j", "ACCEPT"]
    for host in hosts:
        host.run(["iptables", "-t", "mangle", "-A", *rule])
    try:
        yield []
    finally:
        for host in hosts:
            host.run(["iptables", "-t", "mangle", "-D", *rule])


def ours(chain: str, alone: bool = True, path: str = "queue", **settings: int) -> Engine:
    """A daemon with one policy at each end. chain, path, settings: as lab.write_config has them.

    alone: the policy is for the traffic's protocols only. Else it is for TCP and UDP together, and so has no
    GSO flag: a queue has it only where all that comes is TCP.
    """

    @contextlib.contextmanager
    def engine(hosts: Hosts, traffic: Traffic) -> Iterator[Ends]:
        asked = traffic if alone else Traffic(("tcp", "udp"), traffic.ports)
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            both = []
            for host in hosts:
                match = asked.match(host, hosts)
                config = lab.write_config(Path(folder) / host.name[-1], chain, match, path, **settings)
                both.append(End(host, stack.enter_context(lab.daemon(host, config)).pid, config))
            yield both

    return engine


def standing_in(argv: Sequence[str], copy_bytes: int = HEADER_BYTES, options: Sequence[str] = ()) -> Engine:
    """A yardstick at each end: argv QUEUE COPY_BYTES options, on the queue of an empty chain's rules."""

    @contextlib.contextmanager
    def engine(hosts: Hosts, traffic: Traffic) -> Iterator[Ends]:
        words = [*argv, str(lab.FIRST_QUEUE), str(copy_bytes), *options]
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            both = []
            for host in hosts:
                config = lab.write_config(Path(folder) / host.name[-1], EMPTY, traffic.match(host, hosts))
                both.append(End(host, stack.enter_context(lab.yardstick(host, words, config)).pid))
            yield both

    return engine


def c_loop(copy_bytes: int = HEADER_BYTES, gso: bool = False) -> Engine:
    """reference_loop.c at each end."""
    options = ["gso"] if gso else []
    return lambda hosts, traffic: standing_in([str(lab.compiled("reference_loop"))], copy_bytes, options)(
        hosts, traffic
    )


def python_callback() -> Engine:
    """NetfilterQueue with a callback that accepts. It has no way to ask for super-packets."""
    return standing_in([*PYTHON_CALLBACK, "accept"])


def place(ends: Ends, placement: Placement) -> None:
    """Moves the engines to where their hosts are."""
    for end in ends:
        placement.place(end.host, end.pid)


def cpu_ns(ends: Ends) -> int:
    """Time on a CPU of all engines since they began."""
    return sum(lab.cpu_ns(end.pid) for end in ends)


@dataclass(frozen=True)
class Passed:
    """What has gone to a host's engine, by rules and kernel. sent: packets to a queue. Bytes: IP lengths."""

    sent: int
    sent_bytes: int
    queued: int
    dropped: int


def passed(host: Host) -> Passed:
    """Since rules and queue are there. What is cut before the queue is sent once, and queued in pieces."""
    found = SENT_BY_RULES.findall(host.run(["iptables-save", "-c"]).stdout)
    counts = lab.queue_counts(host)
    return Passed(
        sum(int(packets) for packets, _, target in found if target == "NFQUEUE"),
        sum(int(count) for _, count, _ in found),
        counts.queued,
        counts.dropped,
    )


def check(ends: Ends, came_bytes: float, changed: bool = False, left: bool = False) -> int:
    """Raises BenchmarkError unless what came went to the queue of each end, and through its engine.

    changed: a chain of ours must have rewritten it. left: a chain of ours must have seen some of it, and let
    the kernel have most. Returns how many packets the queues dropped.
    """
    return sum(_check(end, came_bytes, changed, left) for end in ends)


def _check(end: End, came_bytes: float, changed: bool, left: bool) -> int:
    lab.wait_until_empty(end.host)
    seen = passed(end.host)
    share = seen.sent_bytes / came_bytes
    if not (0 < share < FIRST if left else share >= WHOLE):
        raise lab.BenchmarkError(
            f"{came_bytes:.0f} bytes came, {seen.sent_bytes} of them by a queue of {end.host.name}"
        )
    if seen.queued + seen.dropped < seen.sent:
        raise lab.BenchmarkError(
            f"{seen.sent} packets sent to a queue of {end.host.name}, {seen.queued} queued"
        )
    if end.config:
        _check_engine(end, _counted(end.config, seen), seen, changed)
    return seen.dropped


def _counted(config: Path, seen: Passed) -> dict[str, int]:
    """Our engine's counters, when it has all that was sent to it, or does not get it."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        counted = lab.counters(config)
        if counted["received_bytes"] >= WHOLE * seen.sent_bytes or time.monotonic() > deadline:
            return counted
        time.sleep(0.1)


def _check_engine(end: End, counted: dict[str, int], seen: Passed, changed: bool) -> None:
    """What our engine says, beside what was sent to it."""
    answered = sum(counted[name] for name in ("passed", "rewritten", "dropped", "held"))
    if counted["received"] != answered:
        raise lab.BenchmarkError(f"{end.host.name}: {counted['received']} received, {answered} answered")
    if counted["received_bytes"] < WHOLE * seen.sent_bytes:
        got = counted["received_bytes"]
        raise lab.BenchmarkError(
            f"{end.host.name}: {seen.sent_bytes} bytes sent to the queue, {got} received"
        )
    if changed and not counted["rewritten"]:
        raise lab.BenchmarkError(f"{end.host.name}: {counted['received']} received, none rewritten")
