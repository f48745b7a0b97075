"""fec on one host only, with other parameters there, and daemons that come and go: no mismatch ends a flow.

a: clients, dig ──▶ wire ──▶ b: sinks, an echo server, dnsmasq
"""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

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
from .datagrams import both_families, connected, echo, exchange, payloads
from .one_way import Sink, keep_tables, losing, paced
from .topology import Hosts, two_hosts

pytestmark = pytest.mark.root

ID_BYTES = 6
FEC = '{ module = "fec" }'
OTHER = '{ module = "fec", source_symbols = 20, repair_symbols = 4 }'
SENDER = [Service("sender", 7301, FEC), Service("dns_asks", 5301, FEC)]
RECEIVER = [Service("receiver", 7302, FEC), Service("dns_answers", 5302, FEC)]
BOTH = [Service("other", 7303, FEC, server_chain=OTHER), Service("dns", 53, FEC)]
EVERY_TENTH = "{} {} -m statistic --mode nth --every 10 --packet 6"


@dataclass
class Pair:
    """Two hosts with a daemon each, of which the one knows the SENDER, the other the RECEIVER policies."""

    hosts: Hosts
    a: Daemon
    b: Daemon


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with two_hosts() as hosts:
        for host in hosts:
            host.set_offloads(False)
            keep_tables(host)
        with (
            running(hosts.a, client_side(SENDER + BOTH)) as a,
            running(hosts.b, server_side(RECEIVER + BOTH)) as b,
            echo(hosts.b, 7303),
        ):
            yield Pair(hosts, a, b)
            for daemon in (a, b):
                assert_balanced(daemon.stats())
        assert_no_checksum_errors(*hosts)


# --- one host only, or other parameters -------------------------------------------------------


@both_families
def test_a_policy_on_the_sender_only(pair: Pair, family: int) -> None:
    """Each datagram arrives, with its id behind it, and repairs besides: one end alone is of no use."""
    sent = payloads(range(300))
    with (
        Sink(pair.hosts.b, 7301) as sink,
        connected(pair.hosts.a, family, pair.hosts.b, 7301) as client,
    ):
        paced(((client, each) for each in sent), per_second=2000)
    received = sink.payloads(7301)
    sources = [each[:-ID_BYTES] for each in received if int.from_bytes(each[-2:], "big") == 10 > each[-3]]
    assert sources == sent
    assert len(received) >= len(sent) * 1.3


@both_families
def test_a_policy_on_the_receiver_only(pair: Pair, family: int) -> None:
    """Each datagram arrives as it was. Noise may look like an id, and then waits a little for the next."""
    before = pair.b.counters("receiver", "fec")["unmarked"]
    sent = payloads([*range(300), *[1001] * 1000])
    with (
        Sink(pair.hosts.b, 7302) as sink,
        connected(pair.hosts.a, family, pair.hosts.b, 7302) as client,
    ):
        paced(((client, each) for each in sent), per_second=4000)
    assert sorted(sink.payloads(7302)) == sorted(sent)
    assert pair.b.counters("receiver", "fec")["unmarked"] - before == len(sent)


@both_families
def test_other_parameters(pair: Pair, family: int) -> None:
    """(10,3) there, (20,4) back, every tenth packet lost both ways, and all recovered; slow and fast."""
    before = [daemon.counters("other", "fec") for daemon in (pair.a, pair.b)]
    with (
        losing(pair.hosts.b, family, EVERY_TENTH.format("--dport", 7303)),
        losing(pair.hosts.a, family, EVERY_TENTH.format("--sport", 7303)),
        connected(pair.hosts.a, family, pair.hosts.b, 7303) as client,
    ):
        sent = payloads([at % 1400 for at in range(0, 14_000, 13)])
        assert sorted(exchange(client, sent)) == sorted(sent)
        for each in sent[:6]:
            assert exchange(client, [each]) == [each]
    for daemon, then in zip((pair.a, pair.b), before, strict=True):
        now = daemon.counters("other", "fec")
        assert now["recovered"] - then["recovered"] > 50
        assert now["other_parameters"] - then["other_parameters"] > 20
        assert now["invalid"] == now["unmarked"] == 0


# --- DNS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def names(pair: Pair) -> None:
    """dnsmasq on port 53, and on those of the policies that one host knows."""
    for port in (53, 5301, 5302):
        words = [
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
            "--user=root", "--pid-file=", "--bind-interfaces", "--listen-address=10.77.0.2,fd77::2",
            f"--port={port}", "--address=/name.test/192.0.2.7", "--address=/name.test/2001:db8::7",
        ]  # fmt: skip
        pair.hosts.b.popen(words, stderr=subprocess.DEVNULL)
        listening = ["ss", "-Hln", "--udp", "sport", "=", str(port)]
        eventually(lambda: pair.hosts.b.run(listening).stdout, 5)  # noqa: B023  called at once


@both_families
@pytest.mark.parametrize("port", [53, 5301, 5302], ids=["both", "client", "server"])
def test_dns(pair: Pair, names: None, port: int, family: int) -> None:
    """One datagram each way, with EDNS and without; dig tells of what is behind an answer, and takes it."""
    for words in (["+noedns"], []):
        for kind, answer in (("A", "192.0.2.7"), ("AAAA", "2001:db8::7")):
            argv = ["dig", "+short", "+time=2", "+tries=1", "+notcp", *words, "-p", str(port)]
            argv += [f"@{pair.hosts.b.address(family)}", "name.test", kind]
            found = pair.hosts.a.run(argv).stdout.splitlines()
            assert found == [answer] or (found[-1] == answer and found[0].startswith(";"))


@both_families
@pytest.mark.parametrize("port", [53, 5301, 5302], ids=["both", "client", "server"])
def test_dns_as_a_resolver_asks(pair: Pair, names: None, port: int, family: int) -> None:
    """For A and for AAAA from one socket at once, without EDNS: they end like two repairs of a block."""
    question = b"\4name\4test\0"
    queries = [
        serial.to_bytes(2, "big") + bytes.fromhex("0100 0001 0000 0000 0000") + question + kind + b"\0\1"
        for serial, kind in ((0x0034, b"\0\1"), (0x1234, b"\0\x1c"))
    ]
    for _ in range(5):
        with connected(pair.hosts.a, family, pair.hosts.b, port) as client:
            answers = exchange(client, queries, 1.0)
        heads = [each[:2] for each in answers]
        assert {each[:2] for each in queries} <= set(heads)
