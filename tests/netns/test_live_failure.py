"""A daemon that is killed, modules that fail, datagrams too long to change: on_failure decides.

a: streams to 7001 (open) and 7002 (closed) ──▶ wire ──▶ b: an echo server
"""

import socket
import time
from pathlib import Path

import pytest

from .daemons import (
    Service,
    assert_balanced,
    assert_no_checksum_errors,
    client_side,
    ruleset,
    running,
    server_side,
)
from .datagrams import FAMILIES, Stream, connected, echo, exchange, payload
from .topology import Hosts

pytestmark = pytest.mark.root

TAG = '{ module = "tag", id = "host-7" }'
CLOSED = 'on_failure = "closed"'
SERVICES = [Service("open", 7001, TAG), Service("closed", 7002, TAG, CLOSED)]
PACE = 300


def _goes_on(stream: Stream) -> bool:
    """Whether anything comes back now."""
    before = len(stream.received)
    time.sleep(0.3)
    return len(stream.received) > before + PACE // 10


@pytest.mark.parametrize("both", [False, True], ids=["one-killed", "both-killed"])
@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_kill_9_under_traffic(hosts: Hosts, family: int, both: bool) -> None:
    """An open policy's traffic flows on, uncustomized; a closed one's stops; the next start recovers both."""
    before = [ruleset(host) for host in hosts]
    with (
        running(hosts.a, client_side(SERVICES)) as a,
        running(hosts.b, server_side(SERVICES)) as b,
        echo(hosts.b, 7001, 7002),
        connected(hosts.a, family, hosts.b, 7001) as to_open,
        connected(hosts.a, family, hosts.b, 7002) as to_closed,
        Stream(to_open, PACE) as opened,
        Stream(to_closed, PACE) as closed,
    ):
        killed = [a, b] if both else [a]
        assert _goes_on(opened) and _goes_on(closed)
        for daemon in killed:
            daemon.kill()
        time.sleep(0.1)
        with hosts.b.capture("udp dst port 7001") as capture:
            assert _goes_on(opened) and not _goes_on(closed)
        assert b"numbered datagram" in capture.content and b"host-7LT" not in capture.content
        for daemon in killed:
            daemon.start()
        assert _goes_on(opened) and _goes_on(closed)
        with hosts.b.capture("udp dst port 7001") as capture:
            assert _goes_on(opened)
        assert capture.content.count(b"host-7LT") == capture.content.count(b"numbered datagram") > PACE // 5
        opened.stop()
        closed.stop()
        # What was in the queues at that instant is lost, and no more: a batch or so of each daemon, each way.
        assert len(opened.lost()) <= 64
        assert len(closed.lost()) > PACE // 4
        for daemon in (a, b):
            assert_balanced(daemon.stats())
            daemon.stop()
    assert [ruleset(host) for host in hosts] == before
    assert_no_checksum_errors(*hosts)


def test_the_first_start_after_a_kill_takes_the_rules_away_too(hosts: Hosts) -> None:
    """Killed, its rules stand; `layer45 rules --remove` takes them out, and so does the next daemon's end."""
    before = ruleset(hosts.a)
    with running(hosts.a, client_side(SERVICES)) as a:
        a.kill()
        assert ruleset(hosts.a) != before
        hosts.a.run(a.command("rules", "--remove"))
        assert ruleset(hosts.a) == before
        a.start()
        a.kill()
        a.start()
        a.stop()
        assert ruleset(hosts.a) == before


# --- a module that fails ------------------------------------------------------

MANIFEST = """
[module]
name = "faulty"
version = "1.0.0"
abi = 1
kind = "datagram"
language = "python"
summary = "Raises an exception for every datagram that says so"
inverse = "none"
transports = ["udp"]
directions = ["egress", "ingress"]
reads = "payload"
gso = false
growth_bytes = { front = 0, back = 0 }
flow_state_bytes = 0
"""
CODE = """
class Module:
    def __init__(self, parameters, count):
        pass

    def egress(self, packet):
        packet.payload = packet.payload.upper()
        if packet.payload.startswith(b"FAIL"):
            raise RuntimeError("as asked")
"""


@pytest.fixture
def site_modules(tmp_path: Path) -> Path:
    """A directory with the module `faulty`."""
    folder = tmp_path / "faulty"
    folder.mkdir()
    (folder / "module.toml").write_text(MANIFEST)
    (folder / "faulty.py").write_text(CODE)
    return tmp_path


def test_a_python_module_that_raises(hosts: Hosts, site_modules: Path) -> None:
    """open: the datagram passes as it was; closed: it is dropped; both are counted, the next one is fine."""
    chain = '{ module = "faulty" }'
    services = Service("open", 7001, chain), Service("closed", 7002, chain, CLOSED)
    settings = f'module_dirs = ["{site_modules}"]'
    with running(hosts.a, client_side(services), settings) as a, echo(hosts.b, 7001, 7002):
        a.expected = ("module failed",)
        for family in FAMILIES:
            with connected(hosts.a, family, hosts.b, 7001) as client:
                assert exchange(client, [b"well", b"fail", b"well"]) == [b"WELL", b"fail", b"WELL"]
            with connected(hosts.a, family, hosts.b, 7002) as client:
                assert exchange(client, [b"well", b"fail", b"well"], 0.3) == [b"WELL", b"WELL"]
        engine = a.engine()
        assert engine["module_errors"] == 4 and engine["failed_open"] == engine["failed_closed"] == 2
        assert_balanced(a.stats(), ("module_errors", "failed_open", "failed_closed"))
    assert_no_checksum_errors(*hosts)


# --- too long -----------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_datagrams_too_long_for_a_tag(hosts: Hosts, family: int) -> None:
    """The longest that fits with its tag is tagged; longer ones pass as they are, or are dropped; counted."""
    longest = 65507 if family == socket.AF_INET else 65527
    sent = [payload(length) for length in (longest - 18, longest - 17, longest)]
    with (
        running(hosts.a, client_side(SERVICES)) as a,
        running(hosts.b, server_side(SERVICES)) as b,
        echo(hosts.b, 7001, 7002),
    ):
        with connected(hosts.a, family, hosts.b, 7001) as client:
            for each in sent:
                assert exchange(client, [each]) == [each]
        with connected(hosts.a, family, hosts.b, 7002) as client:
            for each in sent[1:]:
                assert exchange(client, [each], 0.3) == []
        engine = a.engine()
        assert engine["failed_closed"] == 2
        assert engine["failed_open"] >= 2
        counts = ("failed_open", "failed_closed", "module_errors")
        for daemon in (a, b):
            assert_balanced(daemon.stats(), counts)
    assert_no_checksum_errors(*hosts)
