"""A policy comes in another version while packets flow: old flows finish on the old one, new ones do not.

a: client, daemon ── scramble ──▶ wire ──▶ b: daemon, echo server. A key for each version: who undoes a packet
with the other version's sees garbage.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from .datagrams import Stream, connected, echo, exchange
from .steady import SteadyTransfer, write_flip
from .streams import connection, engine, noise, tcp, transfer
from .topology import Hosts

pytestmark = pytest.mark.root

PORT, TCP_PORT = 7001, 8100
KEYS = {"1": "the first key 16", "2": "the second key 2", "3": "the third key 03"}
PACE, LOAD_S, TURNS = 2000, 10, 6
PAYLOAD = {len(b"1234 numbered datagram")}


def _services(version: str, key: str = "", rest: str = "") -> list[Service]:
    chain = f'{{ module = "scramble", key = "{key or KEYS[version]}" }}'
    settings = f'version = "{version}"\n{rest}'
    return [Service("hidden", PORT, chain, settings), Service("web", TCP_PORT, chain, settings, "tcp")]


@contextlib.contextmanager
def _scrambling(hosts: Hosts, settings: str = "") -> Iterator[tuple[Daemon, Daemon]]:
    """Both ends on version 1."""
    with (
        running(hosts.a, client_side(_services("1")), settings) as a,
        running(hosts.b, server_side(_services("1")), settings) as b,
        echo(hosts.b, PORT),
    ):
        yield a, b
        for daemon in (a, b):
            assert_balanced(daemon.stats())
        assert_no_checksum_errors(*hosts)


def _rotate(a: Daemon, b: Daemon, services: list[Service]) -> None:
    b.reload(server_side(services))
    a.reload(client_side(services))


def _versions(daemon: Daemon, name: str = "hidden") -> list[tuple[str, int]]:
    """Names and flows, the newest first."""
    (policy,) = (each for each in daemon.ask("status")["policies"] if each["name"] == name)
    return [(each["name"], each["flows"]) for each in policy["versions"]]


def _client(hosts: Hosts, family: int = socket.AF_INET) -> socket.socket:
    return connected(hosts.a, family, hosts.b, PORT)


def _talk(client: socket.socket) -> None:
    assert exchange(client, [b"payload"]) == [b"payload"]


def test_two_versions_alternate_under_load(hosts: Hosts) -> None:
    """Receiver and sender, one after the other: nothing is lost or garbled; each flow keeps its version."""
    content = noise(100_000)
    with (
        _scrambling(hosts) as (a, b),
        _client(hosts) as client,
        connection(hosts, socket.AF_INET, TCP_PORT) as ends,
        contextlib.ExitStack() as flows,
    ):
        beside = SteadyTransfer(*ends)
        begun = time.monotonic()
        with Stream(client, PACE) as load:
            for turn in range(TURNS):
                version = "12"[1 - turn % 2]
                _rotate(a, b, _services(version))
                new = flows.enter_context(_client(hosts, socket.AF_INET6))
                _talk(new)
                (flow,) = (each for each in a.flows() if each["local"].endswith(f":{new.getsockname()[1]}"))
                assert flow["policy"] == "hidden"
                with connection(hosts, socket.AF_INET, TCP_PORT) as fresh:
                    assert transfer(*fresh, content) == content
                time.sleep(max(0, begun + (turn + 1) * LOAD_S / TURNS - time.monotonic()))
        assert beside.stop() > 1_000_000
        load.assert_complete()
        assert len(load.received) == load.sent > PACE * LOAD_S // 2
        assert {each[4:] for each in load.received} == {b" numbered datagram"}
        for daemon in (a, b):
            assert _versions(daemon) == [("hidden", 4), ("hidden@2", 3)]
            assert engine(daemon)["connections_customized"] == TURNS + 1
            assert engine(daemon)["connections_alone"] == 0
            assert not [queue for queue in daemon.ask("status")["queues"] if queue["dropped"]]


def test_a_parameter_alone_changes_all_flows_at_once(hosts: Hosts) -> None:
    with _scrambling(hosts) as (a, b), _client(hosts) as client:
        _talk(client)
        _rotate(a, b, _services("1", KEYS["2"]))
        _talk(client)
        assert _versions(a) == _versions(b) == [("hidden", 1)]


@pytest.mark.parametrize("side", ["sender", "receiver"])
def test_while_one_end_has_the_new_version(hosts: Hosts, side: str) -> None:
    """Old flows go on. New TCP connections do not agree, and pass as they are; new datagrams are garbled."""
    content = noise(100_000)
    with (
        _scrambling(hosts) as (a, b),
        _client(hosts) as old,
        connection(hosts, socket.AF_INET, TCP_PORT) as ends,
    ):
        _talk(old)
        if side == "sender":
            a.reload(client_side(_services("2")))
        else:
            b.reload(server_side(_services("2")))
        _talk(old)
        assert transfer(*ends, content) == content
        with connection(hosts, socket.AF_INET, TCP_PORT) as new:
            assert transfer(*new, content) == content
        assert engine(a)["connections_alone"] == 1
        with hosts.b.capture(f"udp dst port {PORT}") as wire, _client(hosts) as new:
            _talk(new)  # the echo comes back by the same two keys
        assert b"payload" not in wire.content


def test_a_module_comes_in_another_version_and_another_queue(hosts: Hosts, tmp_path: Path) -> None:
    """The code of old that flows have stays; segments and super-packets have different queues."""
    flipped, content = [tcp("flipped", TCP_PORT, '{ module = "flip" }')], noise(300_000)
    settings = write_flip(tmp_path)
    with (
        running(hosts.a, client_side(flipped), settings) as a,
        running(hosts.b, server_side(flipped), settings) as b,
        connection(hosts, socket.AF_INET, TCP_PORT) as old,
    ):
        assert transfer(*old, content) == content
        write_flip(tmp_path, bits=0x33, version="2.0.0", gso=True)
        a.reload()
        assert transfer(*old, content) == content
        b.reload()
        assert transfer(*old, content) == content
        with connection(hosts, socket.AF_INET, TCP_PORT) as new:
            assert transfer(*new, content) == content
            assert transfer(*old[::-1], content) == content
            for daemon in (a, b):
                assert _versions(daemon, "flipped") == [("flipped", 1), ("flipped@flip-1.0.0", 1)]
                assert len(daemon.ask("status")["queues"]) == 2


def test_too_many_versions(hosts: Hosts) -> None:
    """The oldest ends, with a warning, and its flows get the newest; the others stay."""
    with _scrambling(hosts) as (a, b), contextlib.ExitStack() as stack:
        flows = []
        for number in range(1, 6):
            if number > 1:
                _rotate(a, b, _services(str(number), f"a key of version {number}"))
            flows.append(stack.enter_context(_client(hosts)))
            _talk(flows[-1])
        for each in flows:
            _talk(each)
        for daemon in (a, b):
            assert [name for name, _ in _versions(daemon)] == ["hidden", "hidden@4", "hidden@3", "hidden@2"]
            assert 'policy \\"hidden\\": its version 1 ends, and its flows lose it' in daemon.log.read_text()
            assert dict(_versions(daemon))["hidden"] == 2


def test_states_concern_all_versions(hosts: Hosts) -> None:
    with _scrambling(hosts) as (a, _), _client(hosts) as old:
        _talk(old)
        a.reload(client_side(_services("2")))
        a.ask("deprecate", "hidden")
        _talk(old)
        assert _versions(a) == [("hidden", 0), ("hidden@1", 1)]
        with _client(hosts) as new:
            received = engine(a)["received"]
            exchange(new, [b"payload"])
            assert engine(a)["received"] == received
        a.ask("activate", "hidden")
        assert _versions(a) == [("hidden", 0), ("hidden@1", 1)]
        a.ask("deactivate", "hidden")
        assert _versions(a) == []
        exchange(old, [b"payload"])
        assert engine(a)["received"] == received


def test_revoked_and_closed_drops_flows_of_every_version(hosts: Hosts) -> None:
    closed = _services("1", rest='on_failure = "closed"'), _services("2", rest='on_failure = "closed"')
    with _scrambling(hosts) as (a, _):
        a.reload(client_side(closed[0]))
        with _client(hosts) as old:
            _talk(old)
            a.reload(client_side(closed[1]))
            _talk(old)
            a.ask("revoke", "hidden")
            for _ in range(3):
                with pytest.raises(PermissionError):
                    old.send(b"payload")


def test_an_old_version_goes_with_its_last_flow(hosts: Hosts) -> None:
    """When neither the engine nor conntrack knows one any more."""
    for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
        for host in hosts:
            host.run(["sysctl", "-w", f"net.netfilter.{name}=4"])
    with _scrambling(hosts, "udp_idle_s = 1") as (a, b):
        with _client(hosts) as old:
            _talk(old)
            _rotate(a, b, _services("2"))
            eventually(lambda: dict(_versions(a))["hidden@1"] == 0, 5)
            assert dict(_versions(a))["hidden@1"] == 0
            _talk(old)  # idle for the engine, but not for conntrack
            assert dict(_versions(a))["hidden@1"] == 1
        for daemon in (a, b):
            eventually(lambda: [name for name, _ in _versions(daemon)] == ["hidden"], 30)  # noqa: B023
            assert 'event="old versions are over"' in daemon.log.read_text()
            assert "hidden@1" in daemon.log.read_text()


def test_old_versions_outlive_their_daemon(hosts: Hosts) -> None:
    """By handover and by restart, also when the files have another version meanwhile."""
    with _scrambling(hosts) as (a, b), contextlib.ExitStack() as stack:
        new: Any = lambda: stack.enter_context(_client(hosts))  # noqa: E731
        first = new()
        _talk(first)
        _rotate(a, b, _services("2"))
        second = new()
        for each in (first, second):
            _talk(each)
        for daemon, side in ((b, server_side), (a, client_side)):
            daemon.restart()
            _talk(first)
            _talk(second)
            daemon.stop()
            daemon.configure(side(_services("3")))
            daemon.start()
            _talk(first)
            _talk(second)
        third = new()
        for each in (first, second, third):
            _talk(each)
        for daemon in (a, b):
            assert _versions(daemon) == [("hidden", 1), ("hidden@2", 1), ("hidden@1", 1)]


def test_a_module_of_old_that_is_gone_is_told(hosts: Hosts, tmp_path: Path) -> None:
    """Another daemon cannot run code that was replaced: the flows get the newest version."""
    flipped, content = [tcp("flipped", TCP_PORT, '{ module = "flip" }')], noise(100_000)
    settings = write_flip(tmp_path)
    with (
        running(hosts.a, client_side(flipped), settings) as a,
        running(hosts.b, server_side(flipped), settings) as b,
        connection(hosts, socket.AF_INET, TCP_PORT) as old,
    ):
        assert transfer(*old, content) == content
        write_flip(tmp_path, bits=0x33, version="2.0.0")
        for daemon in (a, b):
            daemon.restart()
            (warning,) = daemon.ask("status")["warnings"]
            expected = 'policy "flipped": its version flip-1.0.0 cannot go on: module flip 1.0.0 is 2.0.0 now'
            assert warning == expected
            assert [name for name, _ in _versions(daemon, "flipped")] == ["flipped"]
        assert transfer(*old, content) == content
