"""A paced UDP flow from host a to host b, with the fate of each of its datagrams.

    udp_load send -> whatever carries it (a Way) -> udp_load receive

Both ends read one clock, so a latency is from just before send() to just after recv().
"""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from perf import lab
from tests.netns.topology import Host, Hosts

SOURCE_PORT = 9001  # always the same one, so that a flow that was warmed up stays warm
END_TIMEOUT_S = 5.0
QUIET_MS = 300
Numbers = Any  # a numpy array of 64-bit numbers


@dataclass(frozen=True)
class Flow:
    """What is sent."""

    payload_bytes: int
    per_second: int


@dataclass(frozen=True)
class Way:
    """Who carries datagrams from host a to lab.PORT of host b: processes, and where they take them."""

    address: str
    port: int = lab.PORT
    pids: list[int] = field(default_factory=list)

    def cpu_ns(self) -> int:
        """Of all its processes, since they began."""
        return sum(map(lab.cpu_ns, self.pids))


@dataclass(frozen=True)
class Arrivals:
    """What became of a flow. A datagram that came twice counts as often as it came."""

    sent: int
    numbers: Numbers
    sent_ns: Numbers
    received_ns: Numbers
    way_cpu_ns: int  # of the processes that carried it
    ends_cpu_ns: int  # of sender and receiver, which are the same for every way
    others_cpu_ns: int  # of all others on this machine

    @property
    def latency_us(self) -> Numbers:
        return (self.received_ns - self.sent_ns) / 1000

    @property
    def lost(self) -> int:
        return self.sent - len(numpy.unique(self.numbers))

    @property
    def duplicates(self) -> int:
        return len(self.numbers) - len(numpy.unique(self.numbers))


def carry(hosts: Hosts, way: Way, flow: Flow, seconds: float, quiet_ms: int = QUIET_MS) -> Arrivals:
    """Send the flow for some seconds, and wait until nothing more has come for quiet_ms."""
    count = round(flow.per_second * seconds)
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        with _receiver(hosts.b, 2 * count, flow.payload_bytes, records, quiet_ms) as receiver:
            before_ns, busy_ns = way.cpu_ns(), lab.busy_ns()
            words = [way.address, way.port, SOURCE_PORT, count, flow.payload_bytes, flow.per_second]
            done = hosts.a.run([_program(), "send", *map(str, words)], check=False, timeout=seconds + 60)
            if done.returncode:
                raise lab.BenchmarkError(done.stderr.strip())
            sender = json.loads(done.stdout)
            received = _end_of(receiver)
            way_ns, busy_ns = way.cpu_ns() - before_ns, lab.busy_ns() - busy_ns
            if received["spoiled"]:
                raise lab.BenchmarkError(f"{received['spoiled']} datagrams were not as they had been sent")
        numbers, sent_ns, received_ns = numpy.fromfile(records, dtype=numpy.int64).reshape(-1, 3).T
    ends_ns = sender["cpu_ns"] + received["cpu_ns"]
    others_ns = busy_ns - way_ns - ends_ns
    return Arrivals(sender["sent"], numbers, sent_ns, received_ns, way_ns, ends_ns, others_ns)


def _program() -> str:
    return str(lab.compiled("udp_load"))


@contextlib.contextmanager
def _receiver(
    host: Host, most: int, payload_bytes: int, records: Path, quiet_ms: int
) -> Iterator[subprocess.Popen[Any]]:
    words = [_program(), "receive", *map(str, (lab.PORT, most, payload_bytes, records, quiet_ms))]
    process = host.popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        lab.wait_for_ports(host, (lab.PORT,), process)
        yield process
    finally:
        process.kill()
        process.communicate()


def _end_of(receiver: subprocess.Popen[Any]) -> dict[str, int]:
    try:
        output, errors = receiver.communicate(timeout=END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise lab.BenchmarkError("no datagram arrived") from None
    if receiver.returncode:
        raise lab.BenchmarkError(errors.strip())
    return dict(json.loads(output))
