"""A policy whose module fails too often is disabled, loudly, and put back by a reload or a command.

a: datagrams to 7001 (open), 7002 (closed) and 7003 (another policy) ── faulty ──▶ wire ──▶ b: an echo server
"""

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from layer45.control_client import ask
from layer45.control_messages import Status

from .daemons import (
    Daemon,
    Service,
    assert_balanced,
    assert_no_checksum_errors,
    client_side,
    eventually,
    running,
    server_side,
)  # fmt: skip
from .datagrams import Stream, connected, echo, exchange
from .site_modules import FAILING, FAULTY, write_module
from .streams import connection as tcp_connection
from .streams import engine, received, stats, tcp
from .topology import Hosts

pytestmark = pytest.mark.root

CLOSED = 'on_failure = "closed"'
CHAIN = '{ module = "tag", id = "x" }, { module = "faulty" }'
OPEN, SHUT = Service("open", 7001, CHAIN), Service("closed", 7002, CHAIN, CLOSED)
OTHER = Service("other", 7003, '{ module = "tag", id = "x", unmarked = "drop" }')
FAIL = [b"fail"] * 150
EVENTS = "module failed", "policy disabled", "a chain fails on what others began"


def policy(daemon: Daemon, name: str) -> dict[str, Any]:
    """Its row of `layer45 status`."""
    status = ask(daemon.socket, Status(), daemon.directory)
    return next(each for each in status["policies"] if each["name"] == name)


def is_disabled(daemon: Daemon, name: str) -> bool:
    """Once the log says so."""
    lines = daemon.log.read_text().splitlines()
    return any('event="policy disabled"' in line and f"policy={name}" in line for line in lines)


def test_an_open_and_a_closed_policy(hosts: Hosts, tmp_path: Path) -> None:
    """Disabled within seconds: packets pass as they are, or are dropped; the other policy goes on."""
    settings = write_module(tmp_path, "faulty", FAULTY)
    with (
        running(hosts.a, client_side([OPEN, SHUT, OTHER]), settings) as a,
        running(hosts.b, server_side([OTHER])) as b,
        echo(hosts.b, 7001, 7002, 7003),
        connected(hosts.a, socket.AF_INET, hosts.b, 7001) as opened,
        connected(hosts.a, socket.AF_INET6, hosts.b, 7002) as closed,
        connected(hosts.a, socket.AF_INET, hosts.b, 7003) as other,
        Stream(other, 200) as stream,
    ):
        a.expected = EVENTS
        with hosts.b.capture("udp dst port 7001") as capture:
            assert exchange(opened, [b"well"]) == [b"well"]
        assert b"WELLX" in capture.content
        assert exchange(opened, FAIL) == FAIL
        assert exchange(closed, FAIL, 0.3) == []
        eventually(lambda: is_disabled(a, "open") and is_disabled(a, "closed"), 4)
        with hosts.b.capture("udp dst port 7001") as capture:
            assert exchange(opened, [b"well"]) == [b"well"]
        assert b"WELL" not in capture.content and b"well" in capture.content
        assert exchange(closed, [b"well"], 0.3) == []
        row = policy(a, "open")
        assert row["state"] == "active" and row["disabled"]["module"] == "faulty"
        assert row["disabled"]["reason"] == "it raised RuntimeError: as asked"
        assert row["disabled"]["instance"] == 2 and row["disabled"]["failures"] >= 150
        assert policy(a, "other")["disabled"] is None
        text = hosts.a.run(a.command("status")).stdout
        assert "disabled    open, since" in text and "disabled    closed, since" in text
        now = stats(a)
        assert now["policies"]["open"]["bypassed"] == 2 and now["policies"]["closed"]["bypassed"] == 1
        assert (now["engine"]["disabled_passed"], now["engine"]["disabled_dropped"]) == (2, 1)
        stream.stop()
        put_back(a, opened, closed)
        stream.assert_complete()
        assert_balanced(stats(a), ("module_errors", "failed_open", "failed_closed"))
        assert b.counters("other", "tag")["unmarked"] == 0
    assert_no_checksum_errors(*hosts)


def put_back(a: Daemon, opened: socket.socket, closed: socket.socket) -> None:
    """One by a command, the other by a reload that changes nothing; and disabled again if it goes on so."""
    a.host.run(a.command("activate", "closed"))
    assert exchange(closed, [b"well"]) == [b"well"]
    assert policy(a, "closed")["disabled"] is None and policy(a, "open")["disabled"] is not None
    a.reload()
    assert policy(a, "open")["disabled"] is None
    time.sleep(1.5)  # what it did before does not count any more
    assert exchange(opened, [b"well"]) == [b"well"] and policy(a, "open")["disabled"] is None
    assert exchange(opened, FAIL) == FAIL
    eventually(lambda: policy(a, "open")["disabled"], 4)


def test_nobody_out_there_can_disable_a_policy(hosts: Hosts, tmp_path: Path) -> None:
    """A flood for which the server's module raises, and for its echoes again: told once, and nothing else."""
    settings = write_module(tmp_path, "faulty", FAULTY)
    server = (
        '[policy.open]\nmatch = { protocol = "udp", local_port = 7001 }\nchain = [ { module = "faulty" } ]\n'
    )
    with (
        running(hosts.b, server, settings) as b,
        echo(hosts.b, 7001),
        connected(hosts.a, socket.AF_INET, hosts.b, 7001) as client,
        connected(hosts.a, socket.AF_INET6, hosts.b, 7001) as sound,
    ):
        b.expected = EVENTS
        for _ in range(4):
            assert exchange(client, [b"fail"] * 200) == [b"fail"] * 200
            assert exchange(sound, [b"well"]) == [b"well"]
            time.sleep(0.7)
        assert policy(b, "open")["disabled"] is None and not is_disabled(b, "open")
        assert b.log.read_text().count(f'event="{EVENTS[-1]}"') == 1
        now = stats(b)["policies"]["open"]
        assert now["ingress_failed"] == now["egress_failed"] == 800
        assert now["begun_sent"] == now["bypassed"] == 0
        assert_balanced(b.stats(), ("module_errors", "failed_open"))


STREAM = '{ module = "stream_tag", id = "host-7" }, { module = "faulty" }'


def test_customized_connections_are_closed_and_new_ones_go_on_alone(hosts: Hosts, tmp_path: Path) -> None:
    """A disabled chain translates no stream any more: what it began cannot go on, what begins is plain."""
    settings = write_module(tmp_path, "faulty", FAILING, "tcp") + "\nerror_threshold = 3"
    service = tcp("web", 8080, STREAM)
    with (
        running(hosts.a, client_side([service]), settings) as a,
        running(hosts.b, server_side([service]), settings) as b,
    ):
        a.expected = EVENTS
        with tcp_connection(hosts, socket.AF_INET, 8080) as (client, server):
            client.sendall(b"well")
            assert received(server, 4) == b"well"
            assert engine(a)["connections_customized"] == 1
            with pytest.raises(OSError), hosts.b.capture("tcp") as capture:
                for _ in range(100):  # segments that fail, until the socket is closed
                    client.sendall(b"fail")
                    time.sleep(0.1)
            with pytest.raises(ConnectionResetError):
                received(server, 1)
            assert is_disabled(a, "web")
        assert b"fail" not in capture.content
        with (
            hosts.b.capture("tcp") as capture,
            tcp_connection(hosts, socket.AF_INET, 8080) as (client, server),
        ):
            client.sendall(b"plain text")
            assert received(server, 10) == b"plain text"
        assert b"plain text" in capture.content
        assert engine(b)["connections_alone"] == 1
        assert stats(a)["policies"]["web"]["bypassed"] > 0
        for daemon in (a, b):
            assert_balanced(stats(daemon), ("module_errors",))
    assert_no_checksum_errors(*hosts)
