"""`layer45 exec`: a program, and all it starts, under a policy of its own.

host a: daemon, programs  ───>  host b: receiver
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layer45.cgroups import mount_point

from .live_daemon import LiveDaemon, live_daemon
from .topology import Hosts

pytestmark = pytest.mark.root

POLICIES = """
[policy.own]
summary = "no match: only programs started by exec"
chain = [ { module = "tag", id = "a" } ]

[policy.spare]
match = { protocol = "udp", remote_port = [7] }
state = "standby"
"""
SEND = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", (sys.argv[1], 5000))
"""


@pytest.fixture
def daemon(hosts: Hosts, tmp_path: Path) -> Iterator[LiveDaemon]:
    with live_daemon(hosts.a, tmp_path / "a", POLICIES) as made:
        yield made


def received(hosts: Hosts, send: list[str]) -> bytes:
    """What arrives at b when a runs a command."""
    with hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((hosts.b.ipv4, 5000))
        receiver.settimeout(5)
        hosts.a.run(send)
        return receiver.recv(100)


def test_its_packets_go_through_the_chain_and_no_others(daemon: LiveDaemon, hosts: Hosts) -> None:
    daemon.start()
    sender = [sys.executable, "-c", SEND, hosts.b.ipv4]
    assert received(hosts, sender) == b"hello"
    assert len(received(hosts, daemon.command("exec", "own", "--", *sender))) == 5 + 13
    assert (
        len(received(hosts, daemon.command("exec", "own", "--", "sh", "-c", '"$@" & wait', "sh", *sender)))
        == 18
    )
    assert daemon.json("status")["policies"][0]["packets"] == 2


@pytest.mark.parametrize("number", [0, 3, 255])
def test_its_exit_status_is_ours(daemon: LiveDaemon, number: int) -> None:
    daemon.start()
    daemon.layer45("exec", "own", "--", "sh", "-c", f"exit {number}", status=number)


def test_a_signal_reaches_it(daemon: LiveDaemon) -> None:
    daemon.start()
    program = daemon.host.popen(daemon.command("exec", "own", "--", "sleep", "60"))
    time.sleep(1.5)
    program.send_signal(signal.SIGTERM)
    assert program.wait(5) == -signal.SIGTERM


def test_its_options_are_its_own(daemon: LiveDaemon) -> None:
    daemon.start()
    assert daemon.layer45("exec", "own", "--", "echo", "--config", "-x", "--help") == "--config -x --help\n"


def test_it_ignores_no_signal_that_we_ignore(daemon: LiveDaemon) -> None:
    daemon.start()
    ignored = ["grep", "SigIgn", "/proc/self/status"]
    assert daemon.layer45("exec", "own", "--", *ignored) == daemon.host.run(ignored).stdout


def test_it_keeps_standard_input(daemon: LiveDaemon) -> None:
    daemon.start()
    assert daemon.layer45("exec", "own", "--", "cat", input="through") == "through"


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (("ownn", "--", "true"), 1, 'no policy "ownn", did you mean "own"?'),
        (("spare", "--", "true"), 1, 'policy "spare" is on standby'),
        (("own", "--", "no-such-program"), 127, "no-such-program: No such file"),
        (("own", "--", "/etc/passwd"), 126, "/etc/passwd: Permission denied"),
        (("own",), 2, "see layer45 exec --help"),
    ],
)
def test_what_cannot_be_is_one_line(
    daemon: LiveDaemon, words: tuple[str, ...], status: int, expected: str
) -> None:
    daemon.start()
    complaint = daemon.layer45("exec", *words, status=status)
    assert expected in complaint
    assert len(complaint.splitlines()) == 1


def test_without_a_daemon_nothing_runs_uncustomized(daemon: LiveDaemon) -> None:
    complaint = daemon.layer45("exec", "own", "--", "echo", "ran", status=1)
    assert f"start it: layer45 run --config {daemon.directory}" in complaint


def test_from_another_namespace_nothing_runs_uncustomized(daemon: LiveDaemon, hosts: Hosts) -> None:
    daemon.start()
    done = hosts.b.run(daemon.command("exec", "own", "--", "echo", "ran"), check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "another network namespace" in done.stderr


def test_without_root_one_line(daemon: LiveDaemon) -> None:
    """Here: nobody, in a user namespace, who may speak to the daemon but does not own the cgroup."""
    daemon.start()
    daemon.layer45("exec", "own", "--", "true")  # makes the cgroup
    os.chown(mount_point() / daemon.cgroup_root / "own" / "cgroup.procs", 65534, 65534)
    command = daemon.command("exec", "own", "--", "echo", "ran")
    done = daemon.host.run(["unshare", "--user", *command], check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "only root may move a program" in done.stderr


def test_a_program_outlives_the_daemon_and_its_cgroup_is_found_again(
    daemon: LiveDaemon, hosts: Hosts
) -> None:
    daemon.start()
    program = hosts.a.popen(daemon.command("exec", "own", "--", "sleep", "60"), stdout=subprocess.DEVNULL)
    procs = mount_point() / daemon.cgroup_root / "own" / "cgroup.procs"
    until = time.monotonic() + 10
    while not (procs.exists() and procs.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    assert daemon.end() == 0
    assert daemon.cgroups() == [".", "own"]
    daemon.start()
    assert int(procs.read_text()) == program.pid
    program.kill()
    program.wait()
    assert daemon.end() == 0
    assert daemon.cgroups() == []
