"""Policies whose chains the kernel runs by itself, beside the same ones through the queue.

a: clients ──▶ wire ──▶ b: echo servers; a daemon at each end
"""

import os
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .daemons import Service, assert_balanced, assert_no_checksum_errors, client_side, running
from .datagrams import connected, echo, exchange
from .kernel_chains import (
    arrivals,
    counted,
    handed_over,
    in_segments,
    ordinary,
    pair,
    path_of,
    pinned,
    queued,
)
from .queue_recorder import recording
from .streams import received
from .test_live_without_bpf import bare
from .topology import ETHTOOL_SET_TSO, Hosts, two_hosts

pytestmark = pytest.mark.root

COUNT = Service("count", 7001)
PREFIX = Service("prefix", 7002, '{ module = "drop", prefix = "ab" }')
BOTH = Service(
    "both", 7003, '{ module = "drop", length = "0", direction = "ingress" }, '
    '{ module = "drop", prefix = "a", length = "-1400", invert = true, direction = "egress" }',
)  # fmt: skip
CLOSED = Service("closed", 7004, '{ module = "drop", length = "100-" }', 'on_failure = "closed"')
MARKS = Service(
    "marks", 7005, '{ module = "mark", dscp = "EF", prefix = "a", direction = "egress" }, '
    '{ module = "drop", prefix = "abc" }, '
    '{ module = "mark", dscp = 0, length = "-1000", direction = "egress" }',
)  # fmt: skip
SERVICES = [COUNT, PREFIX, BOTH, CLOSED, MARKS]
WEB = Service("web", 8080, protocol="tcp")
DATA = Service("data", 8081, '{ module = "drop", length = "1-", direction = "egress" }', protocol="tcp")
REFUSES = """#!/bin/sh
rules=$(cat)
case "$rules" in *object-pinned*) echo no match bpf >&2; exit 1;; esac
printf '%s\\n' "$rules" | exec {real} "$@"
"""
STREAM_BYTES = 600_000  # the capture has room for a thousand packets


@pytest.mark.parametrize("kind", ["ordinary", "odd", "segments"])
def test_it_is_what_the_queue_does(kind: str) -> None:
    """The same arrives, and the same is counted, of some thousand datagrams; who did it is told."""
    came, told, through = [], [], []
    for path in ("queue", "auto"):
        with two_hosts() as hosts, pair(hosts, SERVICES, path) as (a, b):
            if kind == "segments":
                sizes = ((b"ab" * 700, 350), (b"ac" * 500 + b"a", 500), (b"x" * 90, 100))
                came.append([in_segments(hosts, SERVICES, *each) for each in sizes])
            else:
                came.append([arrivals(hosts, SERVICES, seed, 150, kind == "odd") for seed in range(2)])
            told.append([counted(end, each.name) for end in (a, b) for each in SERVICES])
            through.append((queued(a), queued(b), handed_over(a), handed_over(b)))
            for end in (a, b):
                assert_balanced(end.stats())
            wanted = ("kernel", "") if path == "auto" else ("queue", "")
            assert {path_of(end, each.name) for end in (a, b) for each in SERVICES} == {wanted}
            assert_no_checksum_errors(*hosts)
    assert came[0] == came[1] and any(map(any, came[0][0]))
    assert told[0] == told[1]
    assert all(each["packets"] for each in told[0])
    if kind == "ordinary":
        assert through[1] == (0, 0, 0, 0)
    else:  # IPv6 with an extension header, super-packets of which the segments may differ
        assert 0 < through[1][0] < through[0][0]


def test_a_tcp_stream_in_super_packets_is_counted_as_it_is_on_the_wire(hosts: Hosts) -> None:
    """Sent in super-packets and cut by the kernel, put together on the way in; none is in a queue.

    The policy is about UDP, too: one for TCP alone counts super-packets, as its queue hands them over whole.
    """
    hosts.a.set_offload(ETHTOOL_SET_TSO, False)
    client, server = (f"[policy.web]\nmatch = {{ {side}_port = 8080 }}\n" for side in ("remote", "local"))
    with running(hosts.a, client) as a, running(hosts.b, server) as b:
        with hosts.a.capture("tcp port 8080") as capture:
            _stream(hosts, 8080, bytes(STREAM_BYTES))
        at_a, at_b = counted(a, "web"), counted(b, "web")
        assert queued(a) == queued(b) == 0
    sizes = [int.from_bytes(frame[16:18]) for frame in _frames(capture.content) if frame[29] == 1]  # from a
    assert max(sizes) <= 1500 and sum(sizes) > STREAM_BYTES
    assert (at_a["egress_packets"], at_a["egress_bytes"]) == (len(sizes), sum(sizes))
    for one, other in ((at_a, at_b), (at_b, at_a)):
        for unit in ("packets", "bytes"):
            assert one[f"egress_{unit}"] == other[f"ingress_{unit}"]


def _frames(capture: bytes) -> list[bytes]:
    """Of a pcap file."""
    frames, at = [], 24
    while at < len(capture):
        count = int.from_bytes(capture[at + 8 : at + 12], "little")
        frames.append(capture[at + 16 : at + 16 + count])
        at += 16 + count
    return frames


def _stream(hosts: Hosts, port: int, content: bytes) -> None:
    """From a to b, and both ends are closed."""
    with (
        hosts.b.socket(socket.AF_INET, socket.SOCK_STREAM) as listener,
        hosts.a.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        listener.bind(("0.0.0.0", port))
        listener.listen()
        client.connect((hosts.b.ipv4, port))
        server, _ = listener.accept()
        with server, ThreadPoolExecutor(1) as threads:
            sending = threads.submit(client.sendall, content)
            assert received(server, len(content)) == content
            sending.result()


def test_unmodified_programs_do_not_notice(hosts: Hosts) -> None:
    """iperf3 as ever; a sender is not told that its datagrams are dropped; a peer hears nothing of data."""
    with pair(hosts, [WEB], "auto") as (a, b):
        hosts.b.popen(["iperf3", "-s", "-1", "-p", "8080"], stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        hosts.a.run(["iperf3", "-c", hosts.b.ipv4, "-p", "8080", "-t", "1", "-R"])
        assert path_of(a, "web") == ("kernel", "") and queued(a) == queued(b) == handed_over(a) == 0
        assert counted(a, "web")["ingress_bytes"] > 1 << 20
    with (
        running(hosts.a, client_side([DATA]).replace('"queue"', '"auto"')) as a,
        hosts.b.socket(socket.AF_INET, socket.SOCK_STREAM) as listener,
        hosts.a.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        listener.bind(("0.0.0.0", 8081))
        listener.listen()
        client.connect((hosts.b.ipv4, 8081))
        server, _ = listener.accept()
        with server:
            assert client.send(b"never") == 5
            server.settimeout(0.7)
            with pytest.raises(TimeoutError):
                server.recv(9)
            dropped = a.counters("data", "drop")["dropped"]
            assert 2 <= dropped <= 6  # the segment, and again after a time-out: it has got lost, for TCP


def test_views_say_who_does_it(hosts: Hosts) -> None:
    """status, stats, flows and check, for programs and for people."""
    with pair(hosts, [COUNT, PREFIX], "auto") as (a, _):
        for service in (COUNT, PREFIX):
            with connected(hosts.a, socket.AF_INET, hosts.b, service.port) as client:
                exchange(client, [b"abc", b"b"], 0.3)
        stats = a.stats()
        assert stats["kernel"] == {"received": 7, "received_bytes": 209, "passed": 6, "dropped": 1}
        assert stats["policies"]["prefix"]["path"] == "kernel" and stats["policies"]["prefix"]["flows"] == 0
        assert a.counters("prefix", "drop")["selected"] == 1
        assert a.flows() == []
        shown = a.host.run(a.command("status")).stdout.splitlines()
        row = next(line for line in shown if line.startswith("prefix")).split()
        assert row[4:8] == ["drop-1.0.0", "-", "2", "kernel"]
        said = a.host.run(a.command("stats")).stdout
        assert "KERNEL" in said and stats["help"]["kernel.dropped"] in said
        report = a.ask("check")
        assert [each["path"] for each in report["policies"]] == ["kernel", "kernel"]
        assert pinned(a) == [
            *(f"chain1-{flow}-passes" for flow in ("begun", "came")),
            *(f"chain2-{flow}-{verdict}" for flow in ("begun", "came") for verdict in ("drops", "passes")),
        ]


def test_who_began_a_flow_is_counted_as_the_queue_does(hosts: Hosts) -> None:
    """The client's packets are of flows that it began, the server's are not."""
    with pair(hosts, [COUNT], "auto") as (a, b):
        with connected(hosts.a, socket.AF_INET6, hosts.b, 7001) as client:
            exchange(client, ordinary(1, 20), 0.3)
        assert (counted(a, "count")["begun_sent"], counted(b, "count")["begun_sent"]) == (20, 0)
        assert counted(b, "count")["egress_packets"] == 20


def test_without_bpf_it_is_the_queue(hosts: Hosts) -> None:
    """And status says why."""
    policies = client_side([PREFIX]).replace('"queue"', '"auto"')
    with running(bare(hosts.a), policies) as a, echo(hosts.b, 7002):
        with connected(hosts.a, socket.AF_INET, hosts.b, 7002) as client:
            assert exchange(client, [b"abc", b"b"], 0.3) == [b"b"]
        path, reason = path_of(a, "prefix")
        assert path == "queue" and "Operation not permitted" in reason
        assert f"prefix: not in the kernel: {reason}" in a.host.run(a.command("status")).stdout
        assert queued(a) == counted(a, "prefix")["packets"] == 3


def test_where_the_kernel_does_not_take_the_rules_it_is_the_queue(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one without xt_bpf, which is not to be had here: a program refuses in front of the real one."""
    for tool in ("iptables-restore", "ip6tables-restore"):
        script = tmp_path / tool
        script.write_text(REFUSES.format(real=shutil.which(tool)))
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    policies = client_side([PREFIX]).replace('"queue"', '"auto"')
    with running(hosts.a, policies) as a, echo(hosts.b, 7002):
        with connected(hosts.a, socket.AF_INET, hosts.b, 7002) as client:
            assert exchange(client, [b"abc", b"b"], 0.3) == [b"b"]
        assert path_of(a, "prefix") == ("queue", "iptables-restore: no match bpf")
        assert queued(a) == counted(a, "prefix")["packets"] == 3
        for tool in ("iptables-restore", "ip6tables-restore"):
            (tmp_path / tool).unlink()
        a.reload()  # a kernel that has learned it
        assert path_of(a, "prefix") == ("kernel", "") and counted(a, "prefix")["packets"] == 3


def test_where_another_reads_the_queue_that_is_nobodys_it_is_the_queue(hosts: Hosts) -> None:
    policies = client_side([PREFIX, COUNT]).replace('"queue"', '"auto"')
    with recording(hosts.a, range(65535, 65536)) as recorder, running(hosts.a, policies) as a:
        assert path_of(a, "prefix") == ("queue", "a program reads queue 65535, which is to be nobody's")
        with echo(hosts.b, 7002), connected(hosts.a, socket.AF_INET, hosts.b, 7002) as client:
            assert exchange(client, [b"abc", b"b"], 0.3) == [b"b"]
        assert not recorder.seen and a.counters("prefix", "drop")["dropped"] == 1
        a.reload(client_side([COUNT]).replace('"queue"', '"auto"'))  # which drops nothing
        assert path_of(a, "count") == ("kernel", "")
