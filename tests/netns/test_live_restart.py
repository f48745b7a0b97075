"""A daemon ends and starts again: marks of connections that are open mean what they meant.

a: client, daemon ── flip (TCP, in place) ──▶ wire ──▶ b: daemon, servers
"""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .daemons import Daemon, Service, client_side, eventually, running, server_side
from .datagrams import connected, echo, exchange
from .steady import write_flip
from .streams import connection, counters, noise, tcp, transfer
from .topology import Hosts

pytestmark = pytest.mark.root

PORT, TCP_PORT = 7001, 8100
MARKED = Service("marked", PORT, '{ module = "tag", id = "a" }', "priority = 1")
FLIPPED = tcp("flipped", TCP_PORT, '{ module = "flip" }')
FIRST = '[policy.aaa]\npriority = 9\nmatch = { remote_port = [9] }\nchain = [ { module = "drop" } ]\n'


def _classes(daemon: Daemon) -> dict[str, int]:
    return {each["name"]: each["class"] for each in daemon.ask("status")["policies"]}


def _restarted(daemon: Daemon, policies: str) -> None:
    """Ended and started, with other files."""
    daemon.stop()
    daemon.configure(policies)
    daemon.start()


def test_connections_keep_their_policy(hosts: Hosts, tmp_path: Path) -> None:
    """A policy that comes in front of theirs meanwhile does not get its number: it would drop them."""
    services, settings, content = [MARKED, FLIPPED], write_flip(tmp_path), noise(200_000)
    with (
        running(hosts.a, client_side(services), settings) as a,
        running(hosts.b, server_side(services), settings) as b,
        echo(hosts.b, PORT),
        connection(hosts, socket.AF_INET, TCP_PORT) as ends,
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
    ):
        for daemon, side in ((a, client_side), (b, server_side), (a, client_side)):
            before = _classes(daemon)
            flipped = counters(daemon, "flipped", "flip")["flipped"]
            assert transfer(*ends, content) == content
            assert transfer(*ends[::-1], content) == content
            assert counters(daemon, "flipped", "flip")["flipped"] > flipped
            assert exchange(client, [b"payload"]) == [b"payload"]
            _restarted(daemon, FIRST + side(services))
            after = _classes(daemon)
            assert {name: after[name] for name in before} == before
        assert transfer(*ends, content) == content
        assert counters(a, "flipped", "flip")["flipped"] > 0
        assert exchange(client, [b"payload"]) == [b"payload"]
        assert counters(b, "marked", "tag")["stripped"] == 2


def test_a_burst_after_a_restart(hosts: Hosts, tmp_path: Path) -> None:
    """conntrack saw nothing for a while, and the sender's own window is small: it knows little of theirs."""
    services, settings, content = [FLIPPED], write_flip(tmp_path), noise(200_000)
    for host in hosts:
        host.set_offloads(False)
    with (
        running(hosts.a, client_side(services), settings) as a,
        running(hosts.b, server_side(services), settings),
        connection(hosts, socket.AF_INET, TCP_PORT) as ends,
    ):
        ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        for _ in range(3):
            assert transfer(*ends, content) == content
            assert transfer(*ends[::-1], content[:4000]) == content[:4000]
            _restarted(a, client_side(services))
        assert transfer(*ends, content) == content


def test_a_killed_daemons_numbers_hold_too(hosts: Hosts) -> None:
    with running(hosts.a, client_side([MARKED, FLIPPED.__class__("bulk", 9, protocol="udp")])) as a:
        before = _classes(a)
        a.kill()
        a.killed = False
        a.configure(FIRST + client_side([MARKED]))
        a.start()
        assert _classes(a)["marked"] == before["marked"]
        assert _classes(a)["aaa"] not in before.values()


def test_a_state_by_command_ends_with_the_daemon_and_that_is_told(hosts: Hosts) -> None:
    with running(hosts.a, client_side([MARKED])) as a:
        a.ask("deprecate", "marked")
        _restarted(a, client_side([MARKED]))
        (marked,) = a.ask("status")["policies"]
        assert (marked["state"], marked["state_source"]) == ("active", "file")
        assert 'policy \\"marked\\" was deprecated by command since' in a.log.read_text()
        a.stop()
        a.start()
        assert a.log.read_text().count("was deprecated by command") == 1


def _spoiled(document: dict[str, Any]) -> bytes:
    return json.dumps({**document, "classes": {"marked": 1, "other": 1}}).encode()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.write_bytes(b"\0nonsense"), "JSON is malformed"),
        (lambda path: path.write_bytes(b'{"classes": {"marked": -5}}'), "classes"),
        (lambda path: path.write_bytes(_spoiled(json.loads(path.read_bytes()))), "one class to two policies"),
        (lambda path: path.chmod(0o666), "a file of root's that nobody else can open"),
        (lambda path: os.chown(path, 65534, 65534), "a file of root's that nobody else can open"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "symbolic link"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory|a file of root's"),
    ],
)
def test_a_file_that_is_not_ours_is_not_used(
    hosts: Hosts, spoil: Callable[[Path], object], reason: str
) -> None:
    with running(hosts.a, client_side([MARKED])) as a:
        a.stop()
        path = Path(f"{a.socket}.inheritance")
        spoil(path)
        a.start()
        (line,) = (line for line in a.log.read_text().splitlines() if "not used" in line)
        assert any(each in line for each in reason.split("|")), line
        assert "level=warning" in line
        assert _classes(a) == {"marked": 1}
        if path.is_dir():
            path.rmdir()


def test_numbers_of_other_mark_bits_mean_nothing(hosts: Hosts) -> None:
    with running(hosts.a, client_side([MARKED])) as a:
        a.stop()
        settings = a.directory / "layer45.toml"
        settings.write_text(settings.read_text() + "mark_mask = 0x0fff0000\n")
        a.configure(FIRST + client_side([MARKED]))
        a.start()
        assert _classes(a) == {"aaa": 1, "marked": 2}
        assert "not used" not in a.log.read_text()


def test_a_server_that_waits_is_customized_again(hosts: Hosts) -> None:
    """A UDP server's peers go on; what was sent meanwhile came as it was sent."""
    with (
        running(hosts.b, server_side([MARKED])) as b,
        running(hosts.a, client_side([MARKED])),
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET6, hosts.b, PORT) as client,
    ):
        assert exchange(client, [b"payload"]) == [b"payload"]
        b.stop()
        assert len(exchange(client, [b"payload"])[0]) == len(b"payload")
        b.start()
        assert exchange(client, [b"payload"]) == [b"payload"]
        eventually(lambda: counters(b, "marked", "tag")["stripped"] == 1)
        time.sleep(0.1)
        assert counters(b, "marked", "tag")["tagged"] == 1
