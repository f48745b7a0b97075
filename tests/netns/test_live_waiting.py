"""How long workers wait: what `coalesce_us` and `busy_poll_us` do to batches, delays and the processor.

a: paced sender, daemon with an empty chain ──▶ wire ──▶ b: a sink that notes times
"""

import os
import socket
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from .daemons import Daemon, Service, assert_balanced, client_side, running
from .datagrams import connected
from .one_way import Sink, paced
from .topology import Hosts

pytestmark = pytest.mark.root

PORT = 7001
PLAIN = [Service("plain", PORT)]
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Went:
    """What became of a paced load. delay_s: from the sender to the sink, in the median."""

    a_batch: float
    delay_s: float


def send(hosts: Hosts, count: int, per_second: float) -> list[tuple[bytes, float]]:
    """One numbered datagram after the other; those that came, and after how long."""
    datagrams = [b"%08d" % number for number in range(count)]
    with Sink(hosts.b, PORT) as sink, connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client:
        sent = paced([(client, each) for each in datagrams], per_second)
    came = sink.received[PORT]
    assert [payload for payload, _ in came] == datagrams
    return [(payload, (at - begun) / 1e9) for (payload, at), begun in zip(came, sent, strict=True)]


def gone(hosts: Hosts, a: Daemon, count: int, per_second: float) -> Went:
    before = a.engine()
    delays = [delay for _, delay in send(hosts, count, per_second)]
    after = a.engine()
    assert after["received"] - before["received"] == after["passed"] - before["passed"] == count
    assert_balanced(a.stats())
    return Went(count / (after["batches"] - before["batches"]), statistics.median(delays))


def test_coalescing_makes_batches_of_a_fast_flow(hosts: Hosts) -> None:
    """Ten thousandths of a second of 3000 packets a second are 30; none is lost, and none overtakes."""
    fast: dict[int, Went] = {}
    for coalesce_us in (0, 10_000):
        with running(hosts.a, client_side(PLAIN), f"coalesce_us = {coalesce_us}") as a:
            fast[coalesce_us] = gone(hosts, a, 6000, 3000)
    assert fast[10_000].a_batch > 3 * fast[0].a_batch
    assert fast[10_000].delay_s > 0.002  # of packets that nap through, half wait for longer than 5 ms


def test_coalescing_lets_a_slow_flow_alone(hosts: Hosts) -> None:
    """Fewer than four are to be expected within a nap, so there is none."""
    with running(hosts.a, client_side(PLAIN), "coalesce_us = 10000") as a:
        slow = gone(hosts, a, 200, 150)
    assert slow.delay_s < 0.002


def used_s(daemon: Daemon) -> dict[str, float]:
    """Seconds on a processor so far, by thread: user's and system's, proc(5)."""
    assert daemon.process is not None
    found = {}
    for stat in Path(f"/proc/{daemon.process.pid}/task").glob("*/stat"):
        words = stat.read_text().rpartition(")")[2].split()
        found[stat.parent.name] = (int(words[11]) + int(words[12])) * TICK_S
    return found


def busiest(before: dict[str, float], after: dict[str, float]) -> list[float]:
    """What each thread has used between the two, the busiest first."""
    return sorted((after[name] - before.get(name, 0) for name in after), reverse=True)


def worked(hosts: Hosts, busy_poll_us: int) -> tuple[list[float], list[float]]:
    """What threads used while 200 packets a second came for 1.5 s, and then in a second without any."""
    with running(hosts.a, client_side(PLAIN), f"busy_poll_us = {busy_poll_us}") as a:
        begun = used_s(a)
        send(hosts, 300, 200)
        time.sleep(0.2)
        ended = used_s(a)
        time.sleep(1.0)
        rested = used_s(a)
        assert a.engine()["passed"] == 300
    return busiest(begun, ended), busiest(ended, rested)


def test_a_worker_that_polls_is_busy_while_packets_come_and_no_longer(hosts: Hosts) -> None:
    """It looks for longer than from one packet to the next: only what else runs keeps it from a whole one."""
    without, _ = worked(hosts, 0)
    (polls, *others), rested = worked(hosts, 50_000)
    assert polls > 0.3 and polls > 4 * without[0]
    assert max(others) < polls / 4
    assert rested[0] < 0.1
