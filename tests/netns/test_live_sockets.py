"""Only the chosen sockets: two sockets of one program, programs under `layer45 exec`, several queue groups.

a: sockets to 7001 (policy) and 7002 (none) ──▶ wire ──▶ b: an echo server on both
"""

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
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
from .datagrams import ECHO, FAMILIES, connected, echo, exchange, payloads
from .topology import Host, Hosts

pytestmark = pytest.mark.root

TAG = '{ module = "tag", id = "host-7", unmarked = "drop" }'
SCRAMBLE = '{ module = "scramble", key = "sixteen bytes it is" }'
EXEC_TAG = f"[policy.voice]\nchain = [ {TAG} ]\n"
EXEC_SCRAMBLE = f"[policy.stream]\nchain = [ {SCRAMBLE} ]\n"


def _udp_payloads(packets: Sequence[Any], port: int) -> list[bytes]:
    from scapy.layers.inet import UDP

    return [bytes(packet[UDP].payload) for packet in packets if packet[UDP].dport == port]


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_two_sockets_of_one_program(hosts: Hosts, family: int) -> None:
    """The matched one's packets are queued, each; the other's never, and are the same on the wire."""
    service = [Service("voice", 7001, TAG)]
    sent = payloads(range(1, 301))
    with (
        running(hosts.a, client_side(service)) as a,
        running(hosts.b, server_side(service)) as b,
        echo(hosts.b, 7001, 7002),
        connected(hosts.a, family, hosts.b, 7001) as matched,
        connected(hosts.a, family, hosts.b, 7002) as other,
    ):
        with hosts.b.capture("udp") as capture:
            for at in range(0, len(sent), 50):
                for client in (matched, other):
                    assert exchange(client, sent[at : at + 50]) == sent[at : at + 50]
        packets = capture.packets()
        assert _udp_payloads(packets, 7002) == sent
        wire = _udp_payloads(packets, 7001)
        assert len(wire) == len(sent) and all(b"host-7LT\1" in each for each in wire)
        for daemon in (a, b):
            engine = daemon.engine()
            assert engine["received"] == engine["rewritten"] == 2 * len(sent)
            assert_balanced(daemon.stats())
            assert [flow["policy"] for flow in daemon.flows()] == ["voice"]
    assert_no_checksum_errors(*hosts)


# --- exec --------------------------------------------------------------------------------


def _iperf_server(daemon: Daemon | None, host: Host, port: int, policy: str = "") -> None:
    """Started, and listening; under a policy if one is given."""
    words = ["iperf3", "--server", "--port", str(port), "--forceflush"]
    argv = daemon.command("exec", policy, "--", *words) if daemon else words
    server = host.popen(argv, stdout=subprocess.PIPE)
    assert server.stdout is not None
    for line in server.stdout:
        if "Server listening" in line:
            return
    raise AssertionError("iperf3 does not listen")


def _iperf(host: Host, words: Sequence[str]) -> dict[str, Any]:
    done = json.loads(host.run(words, timeout=30).stdout)
    assert "error" not in done, done["error"]
    return dict(done["end"])


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_a_program_under_exec_and_one_outside(hosts: Hosts, family: int) -> None:
    """An unmodified iperf3 on both hosts under a policy without a match; another pair is not touched."""
    words = ["iperf3", "--udp", "-b", "8M", "-l", "1000", "-t", "1", "--json", "-c", hosts.b.address(family)]
    with running(hosts.a, EXEC_TAG) as a, running(hosts.b, EXEC_TAG) as b:
        _iperf_server(b, hosts.b, 5201, "voice")
        _iperf_server(None, hosts.b, 5202)
        with hosts.b.capture("udp and dst port 5201 or dst port 5202") as capture:
            inside = _iperf(hosts.a, a.command("exec", "voice", "--", *words, "-p", "5201"))
            queued = a.engine()["received"]
            outside = _iperf(hosts.a, [*words, "-p", "5202"])
            assert a.engine()["received"] == queued
        assert inside["sum"]["lost_packets"] == outside["sum"]["lost_packets"] == 0
        from scapy.layers.inet import UDP

        udp = [packet for packet in capture.packets() if UDP in packet]
        tagged, plain = _udp_payloads(udp, 5201), _udp_payloads(udp, 5202)
        assert len(tagged) > 900 and all(each[-18:-8] == b"host-7LT\1\6" for each in tagged)
        assert len(plain) > 900 and not any(b"host-7" in each for each in plain)
        assert b.counters("voice", "tag")["stripped"] == len(tagged) == a.counters("voice", "tag")["tagged"]
        for daemon in (a, b):
            assert_balanced(daemon.stats())
            assert daemon.counters("voice", "tag")["unmarked"] == 0
    assert_no_checksum_errors(*hosts)


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_the_first_packet_to_a_server_under_exec(hosts: Hosts, family: int) -> None:
    """No packet of the server's went out before: only its socket's tag tells whose the packet is."""
    with (
        running(hosts.a, client_side([Service("to_voice", 7001, TAG)])) as a,
        running(hosts.b, EXEC_TAG) as b,
    ):
        assert a.ask("status")["tagger"]["on"] and b.ask("status")["tagger"]["on"]
        argv = b.command("exec", "voice", "--", sys.executable, "-c", ECHO, "7001")
        server = hosts.b.popen(argv, stdout=subprocess.PIPE)
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        with connected(hosts.a, family, hosts.b, 7001) as client, hosts.b.capture("udp") as capture:
            assert exchange(client, [b"the first"]) == [b"the first"]
        first, reply = _udp_payloads(capture.packets(), 7001), capture.packets()[1]
        assert first[0].startswith(b"the firsthost-7") and b"the firsthost-7" in bytes(reply)
        assert b.counters("voice", "tag")["stripped"] == b.counters("voice", "tag")["tagged"] == 1
        assert b.counters("voice", "tag")["unmarked"] == 0


def test_tcp_under_exec_is_scrambled_from_its_first_byte(hosts: Hosts) -> None:
    """The server's listening socket is under exec; every connection to it, and nothing of another one's."""
    with running(hosts.a, EXEC_SCRAMBLE) as a, running(hosts.b, EXEC_SCRAMBLE) as b:
        _iperf_server(b, hosts.b, 5201, "stream")
        _iperf_server(None, hosts.b, 5202)
        for family in FAMILIES:
            words = ["iperf3", "-n", "20M", "--json", "-c", hosts.b.address(family)]
            inside = _iperf(hosts.a, a.command("exec", "stream", "--", *words, "-p", "5201"))
            assert inside["sum_sent"]["bytes"] >= 20_000_000
            queued = a.engine()["received"]
            assert queued > 0
            outside = _iperf(hosts.a, [*words, "-p", "5202"])
            assert outside["sum_sent"]["bytes"] >= 20_000_000 and a.engine()["received"] == queued
        for daemon in (a, b):
            assert_balanced(daemon.stats())
        assert a.counters("stream", "scramble")["scrambled"] > 0
    assert_no_checksum_errors(*hosts)


# --- queue groups --------------------------------------------------------------------------------


def test_open_and_closed_headers_and_payload_beside_each_other(hosts: Hosts) -> None:
    """Four groups of queues in one daemon, and each policy's packets in its own."""
    headers = '{ module = "drop", length = "65535" }'
    services = [
        Service("open_headers", 7001, headers),
        Service("closed_headers", 7002, headers, 'on_failure = "closed"'),
        Service("open_payload", 7003, TAG),
        Service("closed_payload", 7004, TAG, 'on_failure = "closed"'),
    ]
    ports = [service.port for service in services]
    with (
        running(hosts.a, client_side(services)) as a,
        running(hosts.b, server_side(services)) as b,
        echo(hosts.b, *ports),
    ):
        groups = {(queue["on_failure"], queue["copy_bytes"]) for queue in a.ask("status")["queues"]}
        assert groups == {(way, size) for way in ("open", "closed") for size in (192, 65531)}
        for family in FAMILIES:
            for port in ports:
                with connected(hosts.a, family, hosts.b, port) as client:
                    sent = payloads([0, 1, 100, 101, 1400, 1401, 9000])
                    assert sorted(exchange(client, sent)) == sorted(sent)
        for daemon in (a, b):
            stats = daemon.stats()
            assert_balanced(stats)
            for name in (service.name for service in services):
                assert stats["policies"][name]["packets"] == 2 * 2 * 7
    assert_no_checksum_errors(*hosts)


def test_an_empty_configuration_diverts_nothing(hosts: Hosts) -> None:
    """A daemon without a policy runs, and answers."""
    with (
        running(hosts.a, "") as a,
        echo(hosts.b, 7001),
        connected(hosts.a, socket.AF_INET, hosts.b, 7001) as client,
    ):
        assert exchange(client, [b"x"]) == [b"x"]
        assert a.engine()["received"] == 0 and a.ask("status")["policies"] == []
