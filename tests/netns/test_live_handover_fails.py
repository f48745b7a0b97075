"""Handovers that fail: whoever of the two goes in the middle, the other one is in charge, and packets go on.

a: client, daemon ── tag ──▶ wire ──▶ b: daemon, echo server
"""

import os
import signal
import time
from pathlib import Path

import pytest

from layer45.control_client import ask
from layer45.control_messages import ChangeState
from layer45.errors import Layer45Error
from layer45.handover import find_predecessor

from .daemons import client_side, running, server_side
from .datagrams import echo
from .streams import engine
from .test_live_handover import MARKED, PORT, packets_pass, replacing
from .topology import Hosts

pytestmark = pytest.mark.root


def test_a_successor_that_cannot_start_changes_nothing(hosts: Hosts) -> None:
    with (
        running(hosts.a, client_side([MARKED])) as a,
        running(hosts.b, server_side([MARKED])) as b,
        echo(hosts.b, PORT),
    ):
        a.expected = ("the successor did not take over",)
        before = a.ask("status")
        a.configure("[policy.marked]\nmatsch = {}\n")
        for words in (("restart",), ("run", "--replace")):
            failed = hosts.a.run(a.command(*words), check=False)
            assert (failed.returncode, failed.stdout) == (1, "")
            assert f"{a.directory}/policies/all.toml:2: policy.marked.matsch: unknown key" in failed.stderr
            assert "Traceback" not in failed.stderr
            after = a.ask("status")
            assert [after[key] for key in ("pid", "generation", "policies")] == [
                before[key] for key in ("pid", "generation", "policies")
            ]
            assert packets_pass(hosts, b)
            before = a.ask("status")
        a.configure(client_side([MARKED]))
        a.restart()
        assert packets_pass(hosts, b)


def test_states_do_not_change_behind_a_successors_back(hosts: Hosts) -> None:
    """One that has begun and waits: nothing changes; when it is gone, all goes on."""
    with (
        running(hosts.a, client_side([MARKED])) as a,
        running(hosts.b, server_side([MARKED])) as b,
        echo(hosts.b, PORT),
    ):
        a.expected = ("the successor did not take over",)
        predecessor = find_predecessor(a.socket)
        assert predecessor is not None
        with predecessor:
            predecessor.begin()
            for words in (("reload",), ("deprecate", "marked"), ("restart",), ("run", "--replace")):
                refused = hosts.a.run(a.command(*words), check=False)
                assert refused.returncode == 1
                assert f"pid {os.getpid()} is taking over from this daemon; try again" in refused.stderr
            assert "already running" in hosts.a.run(a.command("run"), check=False).stderr
            assert packets_pass(hosts, b)
        predecessor.lock.leave()
        predecessor.listener.close()
        a.reload()
        assert ask(a.socket, ChangeState("marked", "deprecate"), a.directory)["changed"]
        assert a.ask("status")["successor"]["problems"] == ["it ended before it took over"]


def _await_queue(hosts: Hosts, number: int) -> None:
    """Until somebody in a has bound it."""
    until = time.monotonic() + 10
    with hosts.a.entered():
        bound = Path("/proc/thread-self/net/netfilter/nfnetlink_queue")
        while not any(int(line.split()[0]) == number for line in bound.read_text().splitlines()):
            assert time.monotonic() < until
            time.sleep(0.001)


def test_a_successor_that_dies_behind_the_switch(hosts: Hosts) -> None:
    """The rules lead to its queues; the predecessor takes them back."""
    with (
        running(hosts.a, client_side([MARKED])) as a,
        running(hosts.b, server_side([MARKED])) as b,
        echo(hosts.b, PORT),
    ):
        a.expected = ("the successor did not take over",)
        assert a.process is not None
        second = replacing(a)
        _await_queue(hosts, 4501)
        a.process.send_signal(signal.SIGSTOP)  # so that it does not hear of the switch
        while "--queue-num 4501" not in hosts.a.run(["iptables-save", "-t", "mangle"]).stdout:
            time.sleep(0.01)
        time.sleep(0.2)
        second.kill()
        second.wait(5)
        assert not packets_pass(hosts, b)
        a.process.send_signal(signal.SIGCONT)
        until = time.monotonic() + 10
        while not packets_pass(hosts, b):
            assert time.monotonic() < until
        with pytest.raises(Layer45Error, match="no policy"):
            ask(a.socket, ChangeState("nobody", "revoke"), a.directory)


def test_a_predecessor_that_dies_in_the_middle(hosts: Hosts) -> None:
    """The successor is in charge, and leaves nothing at its end."""
    with (
        running(hosts.a, client_side([MARKED])) as a,
        running(hosts.b, server_side([MARKED])) as b,
        echo(hosts.b, PORT),
    ):
        first = a.process
        assert first is not None
        second = replacing(a)
        _await_queue(hosts, 4501)
        first.kill()
        first.wait(5)
        a.process = second
        until = time.monotonic() + 10
        while a.log.read_text().count("event=ready") < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert packets_pass(hosts, b)
        assert a.ask("status")["pid"] == second.pid
        assert engine(a)["received"] == 2
