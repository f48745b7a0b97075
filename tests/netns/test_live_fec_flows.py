"""Many flows of fec at once, live: the daemon's memory is bounded by its settings, not by the flows.

a: 8,000 sockets ── fec ──▶ wire, every 19th packet lost ──▶ fec ── b: a sink
"""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .daemons import (
    Daemon,
    Service,
    assert_balanced,
    assert_no_checksum_errors,
    client_side,
    running,
    server_side,
)
from .datagrams import connected
from .one_way import Sink, keep_tables, losing, paced
from .topology import Hosts

pytestmark = pytest.mark.root

PORT = 7501
SOCKETS, EACH = 8000, 5
PER_SECOND = 20_000
BYTES = 200
SERVICE = [Service("many", PORT, '{ module = "fec", deadline_ms = 1000 }')]


@contextmanager
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, SOCKETS + 1000), max(hard, SOCKETS + 1000)))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def kilobytes(daemon: Daemon, key: str) -> int:
    """Of /proc/PID/status: VmRSS is now, VmHWM the most there was."""
    assert daemon.process is not None
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


@pytest.mark.parametrize(("memory_mb", "enough"), [(64, True), (8, False)])
def test_eight_thousand_flows(hosts: Hosts, memory_mb: int, enough: bool) -> None:
    """Five datagrams each, one of each flow in turn, so that most have a block open at any time. Where there
    is memory for all, what was lost is recovered. Else what was not lost arrives, unaltered."""
    settings = (
        f"module_memory_mb = {memory_mb}\nqueue_length = 65536"  # what finds no room in it would just pass
    )
    for host in hosts:
        host.set_offloads(False)
        keep_tables(host)
    with (
        running(hosts.a, client_side(SERVICE), settings) as a,
        running(hosts.b, server_side(SERVICE), settings) as b,
        many_files(),
    ):
        idle = [kilobytes(daemon, "VmRSS") for daemon in (a, b)]
        sent = _send(hosts)
        peak = [kilobytes(daemon, "VmHWM") for daemon in (a, b)]
        for daemon in (a, b):
            queues = daemon.ask("status")["queues"]
            assert sum(queue["live_flows"] for queue in queues) == SOCKETS
            assert not [queue for queue in queues if queue["dropped"]]
            assert_balanced(daemon.stats(), () if enough else ("pool_empty",))  # repairs that wait in vain
        here, there = (daemon.counters("many", "fec") for daemon in (a, b))
        empty = [daemon.engine()["memory_empty"] for daemon in (a, b)]
    assert_no_checksum_errors(*hosts)
    print(
        f"{memory_mb} MB: {idle} kB before, {peak} kB at most; refused {empty} times; "
        f"{here['unprotected']} unprotected, {there['recovered']} recovered, {sent.missing} lost"
    )
    assert there["unmarked"] == there["stale"] == there["invalid"] == 0
    assert there["arrived"] + there["recovered"] == SOCKETS * EACH - sent.missing
    assert all(most - before < (memory_mb + 40) * 1024 for before, most in zip(idle, peak, strict=True))
    assert (empty == [0, 0] and here["unprotected"] == 0) == enough
    assert sent.missing < SOCKETS * EACH // (500 if enough else 17)


@dataclass
class Sent:
    missing: int


def _send(hosts: Hosts) -> Sent:
    rule = f"--dport {PORT} -m statistic --mode nth --every 19 --packet 6"
    with losing(hosts.b, socket.AF_INET, rule), Sink(hosts.b, PORT) as sink, ExitStack() as stack:
        clients = [
            stack.enter_context(connected(hosts.a, socket.AF_INET, hosts.b, PORT)) for _ in range(SOCKETS)
        ]
        sent = [
            (client, b"%d %d " % (turn, at) + b"." * BYTES)
            for turn in range(EACH)
            for at, client in enumerate(clients)
        ]
        paced(sent, PER_SECOND)
        time.sleep(1)  # the last blocks' deadline
    received = sink.payloads(PORT)
    payloads = {payload for _, payload in sent}
    assert set(received) <= payloads
    assert len(set(received)) == len(received)
    return Sent(len(payloads) - len(received))
