"""mark on a wire, in the queue and in the kernel: whose packets have which DSCP, and that ECN bits stay.

a: programs, daemon ──▶ wire, tcpdump ──▶ b: servers; a daemon there where packets are marked on their way in
"""

import os
import random
import shutil
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from .datagrams import FAMILIES, both_families, connected, echo, exchange
from .kernel_chains import arrivals, counted, pair, path_of, queued
from .streams import received
from .topology import ETHTOOL_SET_TSO, Capture, Host, Hosts, two_hosts

pytestmark = pytest.mark.root

EF, AF41, LE = 46, 34, 1
ECT0 = 2  # of the ECN bits
by_both_paths = pytest.mark.parametrize("path", ["queue", "auto"])
VOICE = Service("voice", 7001, '{ module = "mark", dscp = "EF", direction = "egress" }')
SOME = Service("some", 7002, '{ module = "mark", dscp = "LE", prefix = "ab", direction = "egress" }')
NOT_OURS = 7003
WEB = Service("web", 8080, '{ module = "mark", dscp = "AF41", direction = "egress" }', protocol="tcp")
INWARD = Service("inward", 7004, '{ module = "mark", dscp = "CS5", length = "2-", direction = "ingress" }')
MANY = Service(
    "many", 7005, '{ module = "mark", dscp = 1 }, { module = "drop", prefix = "abc", direction = "egress" }, '
    '{ module = "mark", dscp = "EF", length = "-100", invert = true, direction = "egress" }, '
    '{ module = "mark", dscp = "CS0", prefix = "ac" }, { module = "mark", dscp = 46, length = "99" }',
)  # fmt: skip
STREAM_BYTES = 3_000_000
REFUSES = """#!/bin/sh
rules=$(cat)
case "$rules" in *set-dscp*) echo no target DSCP >&2; exit 1;; esac
printf '%s\\n' "$rules" | exec {real} "$@"
"""


def fields(capture: Capture, source: Host, port: int = 0) -> list[int]:
    """DS fields of the packets that a host sent to the port, and of all fragments; 0: from whichever port."""
    found = []
    for packet in capture.packets():
        network = packet.payload
        if network.src in (source.ipv4, source.ipv6) and port in (0, getattr(network.payload, "dport", 0)):
            found.append(field(network))
    return found


def field(network: Any) -> int:
    return int(network.tos if network.version == 4 else network.tc)


def set_field(client: socket.socket, family: int, value: int) -> None:
    """What the program itself asks for."""
    if family == socket.AF_INET:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, value)
    else:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, value)


def header_errors(host: Host) -> int:
    """IP packets dropped for what is wrong with their headers."""
    rows = [line.split() for line in host.run(["cat", "/proc/net/snmp"]).stdout.splitlines()]
    names, values = (row for row in rows if row[0] == "Ip:")
    six = dict(line.split() for line in host.run(["cat", "/proc/net/snmp6"]).stdout.splitlines())
    return int(values[names.index("InHdrErrors")]) + int(six["Ip6InHdrErrors"])


def assert_sound(*hosts: Host) -> None:
    assert_no_checksum_errors(*hosts)
    assert [header_errors(host) for host in hosts] == [0] * len(hosts)


@by_both_paths
def test_the_policys_datagrams_and_only_they(hosts: Hosts, path: str) -> None:
    """With the program's own code point and ECN bits, on a wire without offloads: checksums are checked."""
    hosts.a.set_offloads(False)
    services = [replace(each, path=path) for each in (VOICE, SOME)]
    sent = [b"abc", b"", b"b", b"ab" * 600]
    wanted = {VOICE.port: [EF] * 4, SOME.port: [LE, 9, 9, LE], NOT_OURS: [9] * 4}
    with running(hosts.a, client_side(services)) as a, echo(hosts.b, *wanted):
        with hosts.b.capture("udp") as capture:
            for port in wanted:
                for family in FAMILIES:
                    with connected(hosts.a, family, hosts.b, port) as client:
                        set_field(client, family, 9 << 2 | ECT0)
                        assert sorted(exchange(client, sent)) == sorted(sent)
        for port, dscps in wanted.items():
            assert fields(capture, hosts.a, port) == [each << 2 | ECT0 for each in dscps] * 2
        assert set(fields(capture, hosts.b)) == {0}  # the echo's own, back through the same policies
        assert a.counters("voice", "mark") == {"selected": 8, "marked": 8}
        assert a.counters("some", "mark") == {"selected": 4, "marked": 4}
        assert {path_of(a, each.name) for each in services} == {("kernel" if path == "auto" else "queue", "")}
        assert bool(queued(a)) == (path == "queue")
        assert_balanced(a.stats())
        assert_sound(hosts.a, hosts.b)


@by_both_paths
@both_families
def test_each_fragment_of_a_long_datagram(hosts: Hosts, path: str, family: int) -> None:
    with running(hosts.a, client_side([replace(VOICE, path=path)])), echo(hosts.b, VOICE.port):
        with hosts.b.capture() as capture, connected(hosts.a, family, hosts.b, VOICE.port) as client:
            assert exchange(client, [bytes(5000)]) == [bytes(5000)]
        assert fields(capture, hosts.a) == [EF << 2] * 4
        assert_sound(hosts.a, hosts.b)


@contextmanager
def stream(hosts: Hosts, family: int, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection from a to b, with ECN."""
    for host in hosts:
        host.run(["sysctl", "-qw", "net.ipv4.tcp_ecn=1"])
    with (
        hosts.b.socket(family, socket.SOCK_STREAM) as listener,
        hosts.a.socket(family, socket.SOCK_STREAM) as client,
    ):
        listener.bind(("", port))
        listener.listen()
        client.connect((hosts.b.address(family), port))
        server, _ = listener.accept()
        with server:
            yield client, server


def transferred(client: socket.socket, server: socket.socket, content: bytes) -> bytes:
    """What arrives of it."""
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(client.sendall, content)
        arrived = received(server, len(content))
        sending.result()
    return arrived


def first_time(segments: list[Any]) -> list[Any]:
    """Without what is sent again, which has no ECT (RFC 3168, section 6.1.5)."""
    found, behind = [], segments[0].payload.seq
    for each in segments:
        if each.payload.seq == behind:
            found.append(each)
            behind = (behind + len(each.payload.payload)) % 2**32
    return found


@by_both_paths
@both_families
@pytest.mark.parametrize("tso", [True, False], ids=["super-packets", "cut"])
def test_a_tcp_stream_with_ecn(hosts: Hosts, path: str, family: int, tso: bool) -> None:
    """Every packet of a's has the code point, data keeps ECT; super-packets too, and what is cut of them."""
    hosts.a.set_offload(ETHTOOL_SET_TSO, tso)
    content = random.Random(1).randbytes(STREAM_BYTES)
    with running(hosts.a, client_side([replace(WEB, path=path)])) as a:
        with hosts.b.capture("tcp") as capture, stream(hosts, family, WEB.port) as (client, server):
            assert transferred(client, server, content) == content
            assert transferred(server, client, b"answer") == b"answer"
        ours = [each.payload for each in capture.packets() if each.payload.src == hosts.a.address(family)]
        data = [each for each in ours if len(each.payload.payload)]
        assert {field(each) >> 2 for each in ours} == {AF41}
        assert {field(each) & 3 for each in first_time(data)} == {ECT0}
        assert field(ours[0]) & 3 == 0  # the SYN
        assert (max(len(each.payload.payload) for each in data) > 1500) == tso
        assert {each >> 2 for each in fields(capture, hosts.b)} == {0}
        told = a.counters("web", "mark")
        assert told["selected"] == told["marked"] == counted(a, "web")["egress_packets"]
        assert bool(queued(a)) == (path == "queue")
        assert_balanced(a.stats())
        assert_sound(hosts.a, hosts.b)


@both_families
def test_in_front_of_conntrack_too(hosts: Hosts, family: int) -> None:
    """Beside a module that makes the stream longer: it runs in raw OUTPUT, and super-packets are cut."""
    chain = f'{{ module = "stream_tag", id = "x" }}, {WEB.chain}'
    both = [replace(WEB, chain=chain)]
    content = random.Random(2).randbytes(STREAM_BYTES)
    with running(hosts.a, client_side(both)) as a, running(hosts.b, server_side(both)) as b:
        with hosts.b.capture("tcp") as capture, stream(hosts, family, WEB.port) as (client, server):
            assert transferred(client, server, content) == content
        assert {each >> 2 for each in fields(capture, hosts.a)} == {AF41}
        assert {each >> 2 for each in fields(capture, hosts.b)} == {AF41}  # egress is b's way out, too
        assert a.engine()["segments_cut"]
        for end in (a, b):
            assert_balanced(end.stats())
        assert_sound(hosts.a, hosts.b)


@by_both_paths
@both_families
def test_on_the_way_in_the_receiver_sees_it(hosts: Hosts, path: str, family: int) -> None:
    """And the wire does not, which is one without offloads: checksums are checked, and that of fragments."""
    hosts.a.set_offloads(False)
    level, ask, told = {
        socket.AF_INET: (socket.IPPROTO_IP, socket.IP_RECVTOS, socket.IP_TOS),
        socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, socket.IPV6_TCLASS),
    }[family]
    with (
        running(hosts.b, server_side([replace(INWARD, path=path)])) as b,
        hosts.b.socket(family, socket.SOCK_DGRAM) as server,
        hosts.b.capture("udp") as capture,
        connected(hosts.a, family, hosts.b, INWARD.port) as client,
    ):
        server.bind(("", INWARD.port))
        server.setsockopt(level, ask, 1)
        server.settimeout(5)
        set_field(client, family, ECT0)
        for sent, dscp in ((b"", 0), (b"x", 0), (b"xy", 40), (bytes(1400), 40), (bytes(4000), 40)):
            client.send(sent)
            arrived, beside, _, _ = server.recvmsg(5000, 64)
            ((at, what, value),) = beside
            assert (arrived, at, what) == (sent, level, told)
            assert value[0] == dscp << 2 | ECT0
        assert b.counters("inward", "mark") == {"selected": 3, "marked": 3}
        assert bool(queued(b)) == (path == "queue" or family == socket.AF_INET6)
        assert_balanced(b.stats())
    assert set(fields(capture, hosts.a)) == {ECT0}
    assert_sound(hosts.a, hosts.b)


def what_is_on_the_wire(capture: Capture, hosts: Hosts) -> Counter[Any]:
    """The hosts' packets by sender, DS field and payload; of fragments, the end."""
    addresses = [address for host in hosts for address in (host.ipv4, host.ipv6)]
    found: Counter[Any] = Counter()
    for packet in capture.packets():
        network = packet.payload
        if network.src not in addresses:
            continue
        udp = packet.haslayer("UDP") and not packet.haslayer("IPv6ExtHdrFragment")
        content = bytes(packet["UDP"].payload) if udp else bytes(network)[-32:]
        found[network.src, field(network), len(network), content] += 1
    return found


def test_kernel_and_queue_mark_alike() -> None:
    """Several marks and a drop, each with another choice, both ways: the same on the wire, and counted."""
    seen, told = [], []
    for path in ("queue", "auto"):
        with two_hosts() as hosts, pair(hosts, [MANY], path) as (a, b):
            with hosts.b.capture() as capture:
                for seed in range(2):
                    arrivals(hosts, [MANY], seed, 100, False)
            seen.append(what_is_on_the_wire(capture, hosts))
            told.append([counted(end, MANY.name) for end in (a, b)])
            assert {path_of(end, MANY.name)[0] for end in (a, b)} == {"kernel" if path == "auto" else "queue"}
            assert_sound(*hosts)
    assert {each >> 2 for _, each, _, _ in seen[0]} == {0, LE, EF}
    assert seen[0] == seen[1]
    assert told[0] == told[1]
    assert all(step["counters"]["selected"] for step in told[0][0]["instances"])


def test_without_the_target_only_chains_that_mark_are_in_the_queue(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kernel without xt_DSCP, which is not to be had here: a program refuses it instead."""
    for tool in ("iptables-restore", "ip6tables-restore"):
        script = tmp_path / tool
        script.write_text(REFUSES.format(real=shutil.which(tool)))
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    count = Service("count", 7006)
    policies = client_side([replace(each, path="auto") for each in (VOICE, count)])
    with running(hosts.a, policies) as a, echo(hosts.b, VOICE.port, count.port):
        reason = "iptables-restore: no target DSCP"
        assert (path_of(a, "voice"), path_of(a, "count")) == (("queue", reason), ("kernel", ""))
        assert f"voice: not in the kernel: {reason}" in a.host.run(a.command("status")).stdout
        assert marks_of_one(hosts) == [EF << 2] and queued(a) == 2
        for tool in ("iptables-restore", "ip6tables-restore"):
            (tmp_path / tool).unlink()
        a.reload()  # a kernel that has learned it
        assert path_of(a, "voice") == ("kernel", "")
        assert marks_of_one(hosts) == [EF << 2] and queued(a) == 2
        assert_marked(a, 2)


def marks_of_one(hosts: Hosts) -> list[int]:
    client = connected(hosts.a, socket.AF_INET, hosts.b, VOICE.port)
    with client, hosts.b.capture("udp") as capture:
        assert exchange(client, [b"x"]) == [b"x"]
    return fields(capture, hosts.a)


def assert_marked(daemon: Daemon, count: int) -> None:
    assert daemon.counters("voice", "mark")["marked"] == count
