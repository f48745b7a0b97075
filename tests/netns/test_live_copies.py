"""Chains that only look: the engine gets copies, and the packets go on without it.

a: programs, daemon: classify ──▶ wire, tcpdump ──▶ b: servers. Nothing is in a queue, or waits for a daemon.
"""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from layer45.fastpath.copies import Group

from .copied import (
    CLASSIFY,
    FLUSHED_S,
    WATCH,
    counted,
    dig,
    listening,
    name_server,
    on_the_wire,
    queues,
    seen,
    write_looking,
)
from .daemons import assert_balanced, assert_no_checksum_errors, eventually, running
from .datagrams import FAMILIES, Stream, connected, echo, exchange, payload
from .live_daemon import live_daemon
from .stream_programs import SECURE, WEB, curl, iperf, iperf_server, lighttpd, ssh_words, sshd, url
from .streams import connection, noise, transfer
from .topology import Hosts

pytestmark = pytest.mark.root

PORT, TCP_PORT = 7001, 8100
both_backends = pytest.mark.parametrize("backend", ["iptables", "nft"])


def test_what_real_programs_speak(hosts: Hosts, tmp_path: Path) -> None:
    """Every flow is what it is, and every packet on the wire was seen: curl, ssh, dig, over both families."""
    (tmp_path / "file").write_bytes(noise(300_000))
    with (
        lighttpd(hosts.b, tmp_path),
        sshd(hosts.b, tmp_path),
        name_server(hosts.b),
        running(hosts.a, WATCH) as a,
    ):
        with hosts.a.capture() as capture:
            for family, address in ((socket.AF_INET, hosts.b.ipv4), (socket.AF_INET6, hosts.b.ipv6)):
                for port in (WEB, SECURE, SECURE):
                    assert len(curl(hosts.a, url(hosts.b, family, port, "file"))) == 300_000
                for words in ((), (), (), ("+tcp",)):
                    assert dig(hosts.a, address, *words) == "192.0.2.7"
                hosts.a.run(["ssh", *ssh_words(tmp_path), "-p", "2222", f"root@{address}", "true"])
        assert seen(a) == on_the_wire(capture)
        found = counted(a)
        assert {name: found[name] for name in found if name not in ("packets", "bytes")} == {
            "http": 2, "tls": 4, "dns": 8, "ssh": 2,
        }  # fmt: skip
        assert found["packets"] == a.policy("watch")["packets"]
        told = {(each["protocol"], each["remote"].rpartition(":")[2]) for each in a.flows()
                if each["instances"][0]["counters"]["tls"]}  # fmt: skip
        assert told == {("tcp", str(SECURE))}
        assert listening(hosts.a, "queue") == []
        assert [each["path"] for each in queues(a)] == ["copies"]
        assert a.ask("status")["policies"][0]["path"] == "copies"
        assert_balanced(a.stats())
        assert a.engine()["copies_lost"] == 0
    assert_no_checksum_errors(*hosts)


@both_backends
@pytest.mark.parametrize("workers", [1, 2])
def test_flows_of_both_sides_and_families(hosts: Hosts, workers: int, backend: str) -> None:
    """A server's policy, and a client's; each flow is in one worker, and no packet is copied twice."""
    settings = f'workers = {workers}\nbackend = "{backend}"'
    server = f"[policy.watch]\nmatch = {{ local_port = [{PORT}] }}\nchain = [ {CLASSIFY} ]\n"
    with running(hosts.a, WATCH, settings) as a, running(hosts.b, server, settings) as b, echo(hosts.b, PORT):
        clients = [connected(hosts.a, family, hosts.b, PORT) for family in FAMILIES for _ in range(16)]
        for client in clients:
            sent = [payload(40 + at, at) for at in range(10)]
            assert exchange(client, sent, 0.5) == sent
            client.close()
        for daemon in (a, b):
            assert seen(daemon)[0] == 32 * 20
            flows = daemon.flows()
            assert len(flows) == 32
            assert {(each["egress_packets"], each["ingress_packets"]) for each in flows} == {(10, 10)}
            assert len(listening(daemon.host, "log")) == len(queues(daemon)) == workers
            assert all(each["live_flows"] >= 32 // workers // 4 for each in queues(daemon))
            assert counted(daemon)["other"] == 32
            assert_balanced(daemon.stats())


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_super_packets_are_seen_whole(hosts: Hosts, family: int) -> None:
    content = noise(8_000_000)
    with running(hosts.a, WATCH) as a, hosts.a.capture("tcp") as capture:
        with connection(hosts, family, TCP_PORT) as (client, server):
            assert transfer(client, server, content) == content
        packets, total = seen(a)
        assert len(content) < total < len(content) * 1.1
        egress = a.policy("watch")["egress_bytes"] / a.policy("watch")["egress_packets"]
        assert egress > 5000
        assert_balanced(a.stats())
    assert (packets, total) == on_the_wire(capture)


def test_a_daemon_that_stands_still_holds_nothing_up(hosts: Hosts) -> None:
    """Not one packet is lost or late; afterwards, all of them have been seen."""
    content = noise(2_000_000)
    with (
        running(hosts.a, WATCH) as a,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
    ):
        assert exchange(client, [b"x"]) == [b"x"]
        assert a.process is not None
        os.kill(a.process.pid, signal.SIGSTOP)
        try:
            with hosts.a.capture() as capture:
                longest = max(_round_trip_s(client) for _ in range(300))
                with connection(hosts, socket.AF_INET6, TCP_PORT) as ends:
                    assert transfer(*ends, content) == content
        finally:
            os.kill(a.process.pid, signal.SIGCONT)
        assert longest < 0.5
        packets, total = on_the_wire(capture)
        eventually(lambda: seen(a) == (packets + 2, total + 2 * 29))
        assert a.engine()["copies_lost"] == 0
        assert_balanced(a.stats())


def _round_trip_s(client: socket.socket) -> float:
    begun = time.monotonic()
    client.setblocking(True)
    client.settimeout(2)
    client.send(b"ping")
    assert client.recv(100) == b"ping"
    return time.monotonic() - begun


COUNT = """
import socket, sys
sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sink.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
sink.bind(("0.0.0.0", int(sys.argv[1])))
sink.settimeout(20)
print("ready", flush=True)
count = 0
while sink.recv(64) != b"end":
    count += 1
print(count, flush=True)
"""


def test_what_was_too_much_is_counted_and_arrived_all_the_same(hosts: Hosts) -> None:
    sent = 300_000
    with running(hosts.a, WATCH) as a:
        sink = hosts.b.popen(["python3", "-c", COUNT, str(PORT)], stdout=subprocess.PIPE)
        assert sink.stdout is not None and a.process is not None
        assert sink.stdout.readline() == "ready\n"
        with connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client:
            client.setblocking(True)
            os.kill(a.process.pid, signal.SIGSTOP)
            try:
                for _ in range(sent):
                    client.send(b"x" * 40)
            finally:
                os.kill(a.process.pid, signal.SIGCONT)
            eventually(lambda: queues(a)[0]["waiting"] == 0 and a.engine()["received"] > 1000)
            client.send(b"end")  # what is missing shows when the next one comes
        assert sink.stdout.readline() == f"{sent}\n"
        eventually(lambda: sum(a.engine()[name] for name in ("received", "copies_lost")) == sent + 1)
        lost = a.engine()["copies_lost"]
        assert lost > 0
        assert queues(a)[0]["dropped"] == lost
        assert_balanced(a.stats())


def test_a_reload_loses_no_copy_and_makes_none_twice(hosts: Hosts, tmp_path: Path) -> None:
    """From group to group, to a queue and back, while packets flow."""
    settings = write_looking(tmp_path, "all_of_it", 'self.count("bytes", len(packet.payload))')
    deep = WATCH.replace(CLASSIFY, f'{CLASSIFY}, {{ module = "all_of_it" }}')
    queued = WATCH + 'path = "queue"\n'
    with (
        running(hosts.a, WATCH, settings) as a,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
    ):
        seen_groups = set()
        with Stream(client, 2000) as load:
            for policies in (deep, WATCH, queued, deep, queued, WATCH):
                time.sleep(0.2)
                a.reload(policies)
                seen_groups.add((*(each["path"] for each in queues(a)), *listening(hosts.a, "log")))
        load.assert_complete()
        time.sleep(0.1)
        engine = a.engine()
        assert engine["received"] == engine["passed"] == 2 * load.sent
        assert engine["copies_lost"] == 0
        assert len(seen_groups) > 2
        assert len(listening(hosts.a, "log")) == 1
        assert listening(hosts.a, "queue") == []
        assert_balanced(a.stats())


@both_backends
def test_states_restart_and_end_leave_nothing(hosts: Hosts, backend: str) -> None:
    with (
        running(hosts.a, WATCH, f'backend = "{backend}"') as a,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET6, hosts.b, PORT) as client,
    ):
        with Stream(client, 500) as load:
            time.sleep(0.2)
            a.ask("deactivate", "watch")
            assert listening(hosts.a, "log") == []
            a.ask("activate", "watch")
            first = listening(hosts.a, "log")
            for _ in range(3):
                time.sleep(0.2)
                a.restart()
            assert len(listening(hosts.a, "log")) == 1 and listening(hosts.a, "log") != first
            before = seen(a)[0]
            time.sleep(0.3)
        load.assert_complete()
        assert seen(a)[0] > before
        a.stop()
        assert listening(hosts.a, "log") == []


def test_a_killed_daemon_hurts_nobody_and_the_next_one_goes_on(hosts: Hosts) -> None:
    with (
        running(hosts.a, WATCH) as a,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
    ):
        with Stream(client, 1000) as load:
            time.sleep(0.2)
            a.kill()
            time.sleep(0.3)
            a.start()
            time.sleep(0.2)
        load.assert_complete()
        assert 0 < seen(a)[0] < 2 * load.sent
        assert_balanced(a.stats())
        a.stop()
        assert listening(hosts.a, "log") == []


def test_a_module_that_does_not_only_look_changes_nothing(hosts: Hosts, tmp_path: Path) -> None:
    """It is told, and disabled for it; on a queue, too."""
    settings = write_looking(tmp_path, "liar", "packet.drop()") + "\nerror_threshold = 20"
    lying = '[policy.watch]\nmatch = {}\nchain = [ { module = "liar" } ]\n'
    for path, rest in (("copies", ""), ("queue", 'path = "queue"\n')):
        with (
            running(hosts.a, lying + rest, settings) as a,
            echo(hosts.b, PORT),
            connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
        ):
            a.expected = ("policy disabled", "a chain fails on what others began")
            sent = [payload(30, at) for at in range(100)]
            assert exchange(client, sent) == sent
            assert queues(a)[0]["path"] == path
            eventually(lambda: a.ask("status")["policies"][0]["disabled"])
            told = a.ask("status")["policies"][0]["disabled"]
            assert (told["module"], told["reason"]) == ("liar", "it gave no verdict that it may give")
            assert_balanced(a.stats(), ("unset_verdicts", "failed_open"))


def test_a_group_that_another_program_reads_is_told(hosts: Hosts, tmp_path: Path) -> None:
    with hosts.a.entered():
        group = Group(4500, 192)
    with live_daemon(hosts.a, tmp_path / "a", WATCH) as daemon:
        complaint = daemon.layer45("run", status=1)
        assert complaint.startswith("layer45: group 4500 is in use by another program (netlink port ")
        group.unbind()
        daemon.start()
        with hosts.a.entered(), pytest.raises(PermissionError):
            Group(4500, 192)
        assert daemon.end() == 0


@both_backends
def test_what_is_decided_comes_no_more(hosts: Hosts, backend: str) -> None:
    """A few packets of each flow are copied, the rest stays in the kernel; a new connection comes again."""
    brief = WATCH.replace(CLASSIFY, '{ module = "classify", packets = 4 }')
    content = noise(4_000_000)
    with (
        running(hosts.a, brief, f'backend = "{backend}"') as a,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET6, hosts.b, PORT) as client,
    ):
        for turn in (1, 2):
            with connection(hosts, socket.AF_INET, TCP_PORT, 40_000) as (near, far):
                for word in (b"SSH-2.0-test\r\n", b"*" * 10):
                    assert transfer(near, far, word) == word
                    time.sleep(FLUSHED_S)
                assert transfer(far, near, content) == content
            assert counted(a)["ssh"] == turn
        for at in range(10):
            assert exchange(client, [b"datagram %d" % at], 0.3) == [b"datagram %d" % at]
        assert counted(a)["other"] == 1
        assert a.engine()["flows_left"] == 3
        assert a.engine()["leave_errors"] == 0
        assert a.engine()["received_bytes"] < 10_000
        assert_balanced(a.stats())


def test_iperf3_is_seen_and_not_slowed(hosts: Hosts) -> None:
    """What it measures is in perf/; here, that all of it goes by, and is counted."""
    with running(hosts.a, WATCH) as a, iperf_server(hosts.b):
        done = iperf(hosts, socket.AF_INET)
        sent = done["sum_sent"]["bytes"]
        packets, total = seen(a)
        lost = a.engine()["copies_lost"]
        assert lost == 0
        assert total > sent
        assert packets < sent / 1448
        assert counted(a)["other"] == 2
        assert_balanced(a.stats())
