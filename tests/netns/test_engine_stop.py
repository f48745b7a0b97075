"""The engine ends at once, whatever still comes, and leaves nothing open."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layer45.engine import Engine
from layer45.errors import Layer45Error
from layer45.loader import Plan, load

from .topology import Host, Hosts

pytestmark = pytest.mark.root

PORT = 5004
STOP_S = 0.2
POLICIES = """
[policy.open]
match = { protocol = "udp", remote_port = 5004 }
chain = [ { module = "duplicate", copies = 2, spacing_ms = 50 }, { module = "tag", id = "stop" } ]
[policy.closed]
match = { protocol = "udp", remote_port = 5005 }
chain = []
path = "queue"
on_failure = "closed"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "stop.toml").write_text(POLICIES)
    root = f"layer45-stop-{os.getpid()}"
    (tmp_path / "layer45.toml").write_text(
        f'control_socket = "{tmp_path}/control.sock"\nworkers = 2\ncgroup_root = "{root}"\n'
    )
    return load(tmp_path)


@contextlib.contextmanager
def flood(hosts: Hosts) -> Iterator[None]:
    """Datagrams of 20 flows to both policies' ports, as fast as one thread sends."""
    ended = threading.Event()
    senders = [hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]

    def send() -> None:
        while not ended.is_set():
            for sender in senders:
                for port in (PORT, PORT + 1):
                    with contextlib.suppress(OSError):
                        sender.sendto(b"x" * 200, (hosts.b.ipv4, port))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for sender in senders:
            sender.close()


def divert(host: Host, plan: Plan) -> None:
    """Rules that stay, so that the queues never get empty while the engine stops."""
    for chain in plan.chains:
        port = PORT if chain.policy.name == "open" else PORT + 1
        selected = f"-t mangle -A OUTPUT -p udp --dport {port}"
        value = plan.rules.marks.spread(chain.class_id)
        host.run(f"iptables {selected} -j MARK --set-mark {value}".split())
        host.run(f"iptables {selected} -j NFQUEUE --queue-num {chain.queue.first} --queue-bypass".split())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_stop_under_a_flood_takes_less_than_200_ms_and_balances(hosts: Hosts, plan: Plan) -> None:
    divert(hosts.a, plan)
    taken = []
    for _ in range(3):
        with hosts.a.entered():
            engine = Engine(plan.settings)
            engine.apply(plan)
        with flood(hosts):
            time.sleep(0.5)
            begun = time.monotonic()
            engine.stop()
            taken.append(time.monotonic() - begun)
        counted = engine.stats()["engine"]
        ends = counted["passed"] + counted["rewritten"] + counted["dropped"] + counted["held"]
        assert counted["received"] == ends > 1000
        assert counted["clones"] == counted["clones_ended"]
        assert counted["held"] == counted["verdict_errors"] == counted["kernel_errors"] == 0
        assert counted["flows_opened"] == counted["flows_closed"] == 40
    assert min(taken) < STOP_S, taken


def test_a_queue_in_use_is_named_and_nothing_stays_open(hosts: Hosts, plan: Plan) -> None:
    with hosts.a.entered():
        first, second = Engine(plan.settings), Engine(plan.settings)
        before = open_descriptors()
        first.apply(plan)
        with pytest.raises(Layer45Error, match="queue 4500: in use by another program"):
            second.apply(plan)
        first.stop()
        assert open_descriptors() == before
        second.apply(plan)
        second.stop()
        assert open_descriptors() == before


def test_an_idle_engine_stops_at_once(hosts: Hosts, plan: Plan) -> None:
    with hosts.a.entered():
        engine = Engine(plan.settings)
        engine.apply(plan)
        begun = time.monotonic()
        engine.stop()
    assert time.monotonic() - begun < STOP_S
