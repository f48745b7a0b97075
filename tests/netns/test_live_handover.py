"""A daemon hands over to its successor while packets flow: none is lost, and none passes as it is.

a: client, daemon ── tag, flip (TCP, in place) ──▶ wire ──▶ b: daemon, echo server
"""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

import layer45

from .daemons import (
    Daemon,
    Service,
    assert_balanced,
    assert_no_checksum_errors,
    client_side,
    eventually,
    running,
    server_side,
)
from .datagrams import Stream, connected, echo, exchange
from .steady import SteadyTransfer, write_flip
from .streams import (
    TAG,
    connection,
    counters,
    customized,
    have_raw_table,
    noise,
    streams,
    tcp,
    transfer,
)
from .topology import Hosts

pytestmark = pytest.mark.root

PORT, TCP_PORT = 7001, 8100
PACE, HANDOVERS = 2000, 4
MARKED = Service("marked", PORT, '{ module = "tag", id = "a", direction = "egress" }',
                 server_chain='{ module = "tag", id = "b", direction = "ingress" }')  # fmt: skip
FLIPPED = tcp("flipped", TCP_PORT, '{ module = "flip" }')
WEB = tcp("web", TCP_PORT, TAG)


def test_nothing_is_lost_and_nothing_passes_as_it_is(hosts: Hosts, tmp_path: Path) -> None:
    """Sender and receiver hand over in turn; a byte that one of them passes by arrives garbled."""
    services, settings = [MARKED, FLIPPED], write_flip(tmp_path)
    with (
        running(hosts.a, client_side(services), settings) as a,
        running(hosts.b, server_side(services), settings) as b,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
        connection(hosts, socket.AF_INET6, TCP_PORT) as ends,
    ):
        beside = SteadyTransfer(*ends)
        stripped = 0
        with Stream(client, PACE) as load:
            for turn in range(HANDOVERS):
                time.sleep(0.3)
                a.restart()
                if turn == HANDOVERS - 1:
                    stripped = counters(b, "marked", "tag")["stripped"]
                    b.restart()
        assert beside.stop() > 1_000_000
        load.assert_complete()
        assert len(load.received) == load.sent > PACE
        assert {len(each) for each in load.received} == {len(b"1234 numbered datagram")}
        tag = counters(b, "marked", "tag")
        assert stripped > 0 < tag["stripped"]
        assert tag["unmarked"] == 0
        for daemon in (a, b):
            assert_balanced(daemon.stats())
            assert not [queue for queue in daemon.ask("status")["queues"] if queue["dropped"]]
    assert_no_checksum_errors(*hosts)


def test_a_closed_policy_stays_closed(hosts: Hosts) -> None:
    """What its chain drops never arrives."""
    dropping = Service("secret", PORT, '{ module = "drop" }', 'on_failure = "closed"')
    with (
        running(hosts.a, client_side([dropping])) as a,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
        Stream(client, PACE) as load,
    ):
        for _ in range(3):
            a.restart()
        load.stop()
        assert load.sent > PACE
        assert load.received == []


def test_what_a_successor_takes_over(hosts: Hosts) -> None:
    """Class numbers, states by command, the cgroups with the programs in them, sockets' tags, the socket."""
    program = '[policy.own]\nmatch = { protocol = "udp", program = "nobody" }\npriority = 1\n'
    spare = '[policy.spare]\nmatch = { protocol = "udp", remote_port = [9] }\n'
    with (
        running(hosts.a, spare + program + client_side([MARKED])) as a,
        running(hosts.b, server_side([MARKED])) as b,
        echo(hosts.b, PORT),
    ):
        a.ask("deprecate", "own")
        before = a.ask("status")
        inode = a.socket.stat().st_ino
        sleeper = hosts.a.popen(a.command("exec", "marked", "--", "sleep", "60"))
        time.sleep(1)
        a.configure("[policy.new]\npriority = 9\nmatch = {}\n" + spare + program + client_side([MARKED]))
        a.restart()
        after = a.ask("status")
        assert after["pid"] != before["pid"]
        assert a.socket.stat().st_ino == inode
        kept = [
            {key: each[key] for key in ("name", "class", "state", "state_source")}
            for each in before["policies"]
        ]
        for each in kept:
            assert each in [{key: one[key] for key in each} for one in after["policies"]]
        assert sleeper.poll() is None
        assert (Path("/proc") / str(sleeper.pid) / "cgroup").read_text().strip().endswith("/marked")
        sleeper.kill()
        sleeper.wait(5)
        warnings = hosts.a.run(a.command("reload")).stderr
        assert 'policy "own" was deprecated by command' in warnings
        assert counters(b, "marked", "tag")["stripped"] == 0


def test_who_opened_its_socket_before_is_customized_after(hosts: Hosts) -> None:
    """By program: the mark of the socket means the same to the successor, and new sockets get one."""
    policy = Service("marked", PORT, MARKED.chain, server_chain=MARKED.server_chain)
    by_name = client_side([policy]).replace("match = {", f'match = {{ program = "{_own_name()}",')
    with running(hosts.a, by_name) as a, running(hosts.b, server_side([policy])) as b, echo(hosts.b, PORT):
        for turn in range(3):
            with connected(hosts.a, socket.AF_INET, hosts.b, PORT) as old:
                assert exchange(old, [b"old"]) == [b"old"]
                a.restart()
                with connected(hosts.a, socket.AF_INET, hosts.b, PORT) as new:
                    assert exchange(new, [b"new"]) == [b"new"]
                assert exchange(old, [b"old"]) == [b"old"]
            tag = counters(b, "marked", "tag")
            assert (tag["stripped"], tag["unmarked"]) == (3 * (turn + 1), 0)


def _own_name() -> str:
    return Path("/proc/self/comm").read_text().strip()


def test_customized_connections_are_closed_and_new_ones_customized(hosts: Hosts) -> None:
    """What the engine knows of them is not handed over; nothing of them passes as it came."""
    content = noise(100_000)
    have_raw_table(hosts.a)
    with running(hosts.a, client_side([WEB])) as a, running(hosts.b, server_side([WEB])) as b:
        with connection(hosts, socket.AF_INET, TCP_PORT) as (client, server):
            assert transfer(client, server, content) == content
            a.restart()
            for end in (client, server):
                with pytest.raises((ConnectionError, TimeoutError)):
                    end.sendall(b"x")
                    end.recv(1)
        with connection(hosts, socket.AF_INET, TCP_PORT) as new:
            assert transfer(*new, content) == content
        assert customized(a) == 1
        assert customized(b) == 2
        for daemon in (a, b):
            assert_balanced(daemon.stats())


def test_a_connection_that_opens_meanwhile_is_customized(hosts: Hosts) -> None:
    """The SYN went by the predecessor, its answer comes to the successor."""
    content = noise(100_000)
    late = ["PREROUTING", "-p", "tcp", "--tcp-flags", "SYN,ACK", "SYN,ACK", "-j", "DROP"]
    for host in hosts:
        have_raw_table(host)
    with streams(hosts, [WEB]) as (a, b):
        with hosts.b.socket(socket.AF_INET, socket.SOCK_STREAM) as waiting:
            waiting.bind((hosts.b.ipv4, TCP_PORT))
            waiting.listen()
            waiting.settimeout(20)
            with hosts.a.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                hosts.a.run(["iptables", "-t", "raw", "-I", *late])
                client.setblocking(False)
                client.connect_ex((hosts.b.ipv4, TCP_PORT))
                time.sleep(0.05)
                a.restart()
                hosts.a.run(["iptables", "-t", "raw", "-D", *late])
                server = waiting.accept()[0]
                client.settimeout(20)
                server.settimeout(20)
                with server:
                    assert transfer(client, server, content) == content
                    assert transfer(server, client, content) == content
        assert customized(a) == customized(b) == 1


def test_what_the_service_manager_allows_is_enough(hosts: Hosts) -> None:
    """The unit's capabilities, and no way to get others."""
    unit = (Path(layer45.__file__).parent / "layer45.service").read_text()
    (allowed,) = (line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet="))
    names = (each.removeprefix("CAP_").lower() for each in allowed.partition("=")[2].split())
    bounds = ",".join(["-all", *(f"+{name}" for name in names)])
    with (
        running(hosts.a, client_side([MARKED])) as a,
        running(hosts.b, server_side([MARKED])) as b,
        echo(hosts.b, PORT),
    ):
        a.stop()
        words = ["setpriv", "--no-new-privs", "--bounding-set", bounds, *a.command("run")]
        with a.log.open("a") as log:
            a.process = hosts.a.popen(words, stderr=log)
        eventually(lambda: a.log.read_text().count("event=ready") == 2, 10)
        before = _rights(a)
        a.restart()
        assert packets_pass(hosts, b)
        assert _rights(a) == before
        assert "NoNewPrivs:\t1" in before


def _rights(daemon: Daemon) -> list[str]:
    assert daemon.process is not None
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return [line for line in lines if line.startswith(("Cap", "NoNewPrivs"))]


def packets_pass(hosts: Hosts, b: Daemon) -> bool:
    """Whether a datagram from a is customized."""
    before = counters(b, "marked", "tag")["stripped"]
    with connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client:
        assert exchange(client, [b"payload"]) == [b"payload"]
    return counters(b, "marked", "tag")["stripped"] == before + 1


def replacing(daemon: Daemon) -> subprocess.Popen[str]:
    """Another daemon that takes over from this one, and goes on with its log."""
    with daemon.log.open("a") as log:
        return daemon.host.popen(daemon.command("run", "--replace"), stderr=log)


def test_run_replace_takes_over_and_starts_where_nothing_runs(hosts: Hosts) -> None:
    with (
        running(hosts.a, client_side([MARKED])) as a,
        running(hosts.b, server_side([MARKED])) as b,
        echo(hosts.b, PORT),
    ):
        first = a.process
        assert first is not None
        second = replacing(a)
        assert first.wait(20) == 0
        a.process = second
        assert packets_pass(hosts, b)
        assert a.ask("status")["pid"] == second.pid
        a.stop()
        a.process = replacing(a)
        while a.socket.exists() is False:
            time.sleep(0.05)
        assert packets_pass(hosts, b)


def test_the_service_manager_hears_whose_service_it_is(hosts: Hosts, tmp_path: Path) -> None:
    with (
        running(hosts.a, client_side([MARKED])) as a,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
    ):
        a.stop()
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        with a.log.open("a") as log:
            a.process = hosts.a.popen(a.command("run"), stderr=log, env=environment)
        heard = []
        while not heard or not heard[-1].startswith(b"READY=1"):
            heard.append(manager.recv(4096))
        a.restart()
        assert a.process is not None
        heard = [each for each in _until(manager, b"WATCHDOG=1") if each != b"WATCHDOG=1"]
        assert heard[0] == f"MAINPID={a.process.pid}".encode()
        assert heard[1].startswith(b"READY=1\nSTATUS=1 policies, generation 1")
        assert len(heard) == 2


def _until(manager: socket.socket, last: bytes) -> list[bytes]:
    """What comes, up to the second-last one that is the last after READY."""
    found: list[bytes] = []
    while not (found and found[-1] == last and any(each.startswith(b"READY") for each in found)):
        found.append(manager.recv(4096))
    return found
