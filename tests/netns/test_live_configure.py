"""Modules that take their time to configure, or refuse to: all others go on, and a refusal changes nothing.

a: a steady stream to 7001 (tag), a customized connection to 8080 ──▶ wire ──▶ b: echo server, listener
"""

import os
import socket
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from layer45.control_client import ask
from layer45.control_messages import Reload, Status
from layer45.errors import Layer45Error

from .daemons import Daemon, Service, assert_balanced, client_side, ruleset, running, server_side
from .datagrams import Stream, connected, echo
from .live_daemon import live_daemon
from .site_modules import write_module
from .streams import connection, counters, customized, noise, stats, tcp, transfer
from .topology import Hosts

pytestmark = pytest.mark.root

VOICE = Service("voice", 7001, '{ module = "tag", id = "x", unmarked = "drop" }')
WEB = tcp("web", 8080, '{ module = "stream_tag", id = "x" }')
# Configures as long as its parameter says: half of the time it sleeps, half of it it computes.
SLOW = """
import time

class Module:
    def __init__(self, parameters, count):
        seconds = float(parameters["word"])
        time.sleep(seconds / 2)
        until = time.monotonic() + seconds / 2
        while time.monotonic() < until:
            sum(range(1000))

    def egress(self, packet):
        pass
"""
RAISES = """
class Module:
    def __init__(self, parameters, count):
        raise {0}

    def egress(self, packet):
        pass
"""


def slow(seconds: float) -> Service:
    return Service("slow", 7005, f'{{ module = "slow", word = "{seconds}" }}')


def worst_gap(received: list[tuple[float, bytes]]) -> float:
    """Seconds between two that came one after the other."""
    return max(after[0] - before[0] for before, after in pairwise(received))


class Timed(list[Any]):
    """A list that remembers when each item was appended."""

    def __init__(self) -> None:
        super().__init__()
        self.when: list[tuple[float, bytes]] = []

    def append(self, item: bytes) -> None:
        self.when.append((time.monotonic(), item))
        super().append(item)


def test_packets_go_on_while_a_module_configures(hosts: Hosts, tmp_path: Path) -> None:
    """2000 datagrams a second through another policy: none is lost, none waits; a question does."""
    settings = write_module(tmp_path, "slow", SLOW)
    with (
        running(hosts.a, client_side([VOICE]), settings) as a,
        running(hosts.b, server_side([VOICE])) as b,
        echo(hosts.b, 7001),
        connected(hosts.a, socket.AF_INET, hosts.b, 7001) as client,
    ):
        a.configure(client_side([VOICE, slow(1.5)]))
        stream = Stream(client, 2000)
        timed = stream.received = Timed()
        with stream:
            time.sleep(0.3)
            begun = time.monotonic()
            reload = threading.Thread(target=ask, args=(a.socket, Reload(), a.directory))
            reload.start()
            time.sleep(0.1)
            assert ask(a.socket, Status(), a.directory)["generation"] == 2
            assert time.monotonic() - begun > 1.4
            reload.join()
            time.sleep(0.3)
        stream.assert_complete()
        assert worst_gap(timed.when) < 0.5, worst_gap(timed.when)
        print(f"worst gap {worst_gap(timed.when) * 1000:.1f} ms")
        for daemon in (a, b):
            assert_balanced(stats(daemon))
            assert counters(daemon, "voice", "tag")["gaps"] == 0


def test_the_watchdog_waits_for_a_module_that_configures(hosts: Hosts, tmp_path: Path) -> None:
    """A service manager that kills whoever is silent for 0.6 s hears of us throughout the 2.5."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        live_daemon(hosts.a, tmp_path / "a", client_side([VOICE])) as daemon,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        write_module(tmp_path, "slow", SLOW)
        daemon.settings(module_dirs=[str(tmp_path)])
        daemon.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="600000")
        daemon.policies(client_side([VOICE, slow(2.5)]))
        reload = threading.Thread(target=ask, args=(daemon.socket, Reload(), daemon.directory))
        while not manager.recv(4096).startswith(b"WATCHDOG"):
            pass
        reload.start()
        heard = [time.monotonic()]
        while reload.is_alive():
            if manager.recv(4096).startswith(b"WATCHDOG"):
                heard.append(time.monotonic())
        assert heard[-1] - heard[0] > 2
        assert max(after - before for before, after in pairwise(heard)) < 0.6
        assert daemon.json("status")["generation"] == 2
        assert daemon.end() == 0


REFUSALS = {
    "value": ("RuntimeError('no such key')", "RuntimeError: no such key"),
    "exit": ("SystemExit(3)", "SystemExit: 3"),
    "interrupt": ("KeyboardInterrupt", "KeyboardInterrupt:"),
    "memory": ("MemoryError('too much')", "MemoryError: too much"),
    "generator": ("GeneratorExit", "GeneratorExit:"),
}
COMPILED = '{ module = "fec", source_symbols = 9, repair_symbols = 3, interleave = 2, reorder_ms = 5 }'


def test_a_refusal_changes_nothing(hosts: Hosts, tmp_path: Path) -> None:
    """Whatever it raises: one line that says where; rules, generation, flows and connections stay.

    The configuration that is refused has no policy `web` any more: its connection would be closed.
    """
    for name, (raised, _) in REFUSALS.items():
        settings = write_module(tmp_path, name, RAISES.format(raised))
    with (
        running(hosts.a, client_side([VOICE, WEB]), settings) as a,
        running(hosts.b, server_side([VOICE, WEB])),
        echo(hosts.b, 7001),
        connected(hosts.a, socket.AF_INET6, hosts.b, 7001) as client,
        connection(hosts, socket.AF_INET, 8080) as (here, there),
        Stream(client, 500) as stream,
    ):
        a.expected = ("reload failed; nothing changed",)
        assert customized(a) == 1 and transfer(here, there, b"before") == b"before"
        before = ruleset(hosts.a)
        for name, (_, said) in REFUSALS.items():
            raised = f"{said} ({tmp_path / name / name}.py:4)"
            assert refused(a, f'{{ module = "{name}" }}') == f"module {name}: {raised}"
        said = refused(a, COMPILED)
        assert said.startswith("module fec: reorder_ms: expected 0 with interleave above 1")
        assert ruleset(hosts.a) == before
        now = ask(a.socket, Status(), a.directory)
        assert now["generation"] == 1 and {each["name"] for each in now["policies"]} == {"voice", "web"}
        content = noise(100_000)
        assert transfer(here, there, content) == content and customized(a) == 1
        stream.stop()
        stream.assert_complete()
        assert counters(a, "voice", "tag")["gaps"] == 0
        assert_balanced(stats(a))


def refused(a: Daemon, chain: str) -> str:
    """What a reload says to a chain, behind the place."""
    a.configure(client_side([VOICE, Service("bad", 7005, chain)]))
    with pytest.raises(Layer45Error) as caught:
        ask(a.socket, Reload(), a.directory)
    place, _, text = str(caught.value).partition(": policy.bad.chain[0]: ")
    assert place == f"{a.directory}/policies/all.toml:9" and len(text.splitlines()) == 1
    return text


def test_a_state_by_command_is_refused_in_the_same_way(hosts: Hosts, tmp_path: Path) -> None:
    """`activate` configures, too: what stood by may be fit to run, or not."""
    settings = write_module(tmp_path, "bad", RAISES.format("OSError('no card')"))
    bad = Service("bad", 7005, '{ module = "bad" }', 'state = "standby"')
    with running(hosts.a, client_side([VOICE, bad]), settings) as a:
        a.expected = ("state not changed",)
        done = hosts.a.run(a.command("activate", "bad"), check=False)
        assert (
            done.returncode == 1
            and "all.toml:9: policy.bad.chain[0]: module bad: OSError: no card" in done.stderr
        )
        assert {each["name"]: each["state"] for each in a.ask("status")["policies"]} == {
            "voice": "active", "bad": "standby",
        }  # fmt: skip


def test_a_start_that_is_refused_leaves_nothing(hosts: Hosts, tmp_path: Path) -> None:
    """One line, and status 1."""
    write_module(tmp_path, "bad", RAISES.format("SystemExit('no card')"))
    before = ruleset(hosts.a)
    with live_daemon(
        hosts.a, tmp_path / "a", client_side([Service("bad", 7005, '{ module = "bad" }')])
    ) as daemon:
        daemon.settings(module_dirs=[str(tmp_path)])
        said = daemon.layer45("run", status=1, env={**os.environ, "NOTIFY_SOCKET": ""})
        assert said.splitlines()[-1].endswith(f"SystemExit: no card ({tmp_path}/bad/bad.py:4)")
        assert ruleset(hosts.a) == before and daemon.cgroups() == []
    with pytest.raises(Layer45Error, match="no daemon is running"):
        ask(daemon.socket, Status(), daemon.directory)
