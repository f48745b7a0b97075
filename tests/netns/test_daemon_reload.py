"""Reload under traffic: open policies lose nothing, closed ones leak nothing, a failure changes nothing.

host a: daemon, sender of numbered datagrams  ───>  host b: receiver
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

from .live_daemon import LAYER45, LiveDaemon, live_daemon
from .owned_sockets import new_cgroups
from .topology import Hosts

pytestmark = pytest.mark.root

SO_RCVBUFFORCE = 33  # the socket module does not name it

PLAIN = '[policy.voice]\npath = "queue"\nmatch = { protocol = "udp", remote_port = [5000] }\n'
TAGGED = PLAIN + 'chain = [ { module = "tag", id = "a" } ]\non_failure = "closed"\n'
DEEP = '[policy.deep]\npath = "queue"\npriority = 9\nmatch = {{ cgroup = ["{}"] }}\non_failure = "closed"\n'
OTHER = '[policy.other]\npath = "queue"\nmatch = { protocol = "tcp", remote_port = [80] }\n'
CLOSED_OTHER = OTHER + 'on_failure = "closed"\n'

SENDER = """
import socket, sys, time
count = 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.connect((sys.argv[1], 5000))
    print("sending", flush=True)
    import select
    while not select.select([sys.stdin], [], [], 0)[0]:
        sender.send(count.to_bytes(8))
        count += 1
        time.sleep(0.0005)
print(count, flush=True)
"""


@pytest.fixture
def daemon(hosts: Hosts, tmp_path: Path) -> Iterator[LiveDaemon]:
    with live_daemon(hosts.a, tmp_path / "a", PLAIN) as made:
        yield made


class Traffic:
    """Numbered datagrams from a to b while the context lasts; then how many were sent, and what came."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.sent = 0
        self.received: list[bytes] = []

    def __enter__(self) -> "Traffic":
        self.receiver = self.hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.receiver.bind((self.hosts.b.ipv4, 5000))
        self.sender = self.hosts.a.popen(
            [sys.executable, "-c", SENDER, self.hosts.b.ipv4], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.sender.stdout is not None
        assert self.sender.stdout.readline() == "sending\n"
        time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        said, _unused = self.sender.communicate("stop\n", timeout=10)
        self.sent = int(said)
        self.receiver.settimeout(1)
        try:
            while True:
                self.received.append(self.receiver.recv(2048))
        except TimeoutError:
            self.receiver.close()


def test_an_open_policy_loses_nothing_over_many_reloads(daemon: LiveDaemon, hosts: Hosts) -> None:
    """The chain stays while its neighbours come and go, in queues of their own."""
    daemon.start()
    with Traffic(hosts) as traffic:
        for text in (PLAIN + OTHER, PLAIN, PLAIN + CLOSED_OTHER, PLAIN + OTHER, PLAIN):
            daemon.policies(text)
            daemon.layer45("reload")
    assert [int.from_bytes(payload) for payload in traffic.received] == list(range(traffic.sent))
    assert daemon.json("status")["generation"] == 6


def test_an_open_policy_that_comes_and_goes_loses_nothing(daemon: LiveDaemon, hosts: Hosts) -> None:
    daemon.start()
    with Traffic(hosts) as traffic:
        for text in (OTHER, PLAIN, OTHER + PLAIN, OTHER, PLAIN.replace("5000", "5001"), PLAIN):
            daemon.policies(text)
            daemon.layer45("reload")
    assert sorted(int.from_bytes(payload) for payload in traffic.received) == list(range(traffic.sent))


def test_a_closed_policy_leaks_nothing_over_many_reloads(daemon: LiveDaemon, hosts: Hosts) -> None:
    daemon.policies(TAGGED)
    daemon.start()
    with Traffic(hosts) as traffic:
        for text in (TAGGED + OTHER, TAGGED, TAGGED + CLOSED_OTHER, TAGGED.replace('"a"', '"b"'), TAGGED):
            daemon.policies(text)
            daemon.layer45("reload")
    assert len(traffic.received) == traffic.sent
    assert {len(payload) for payload in traffic.received} == {8 + 13}


def test_stop_and_start_lose_nothing_of_an_open_policy(daemon: LiveDaemon, hosts: Hosts) -> None:
    daemon.start()
    with Traffic(hosts) as traffic:
        for _ in range(3):
            assert daemon.end() == 0
            daemon.start()
    assert sorted(int.from_bytes(payload) for payload in traffic.received) == list(range(traffic.sent))


def test_a_failed_reload_keeps_what_runs(daemon: LiveDaemon, hosts: Hosts) -> None:
    daemon.policies(TAGGED)
    daemon.start()
    rules, before = daemon.rules(), daemon.json("status")
    daemon.policies(TAGGED + '[policy.broken]\nchain = [ { module = "tga" } ]\nstate = "activ"\n')
    complaint = daemon.layer45("reload", status=1)
    lines = complaint.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"layer45: {daemon.directory}/policies/all.toml:") for line in lines)
    assert daemon.rules() == rules
    after = daemon.json("status")
    assert after["generation"] == before["generation"]
    assert after["policies"] == before["policies"]
    assert after["last_reload"]["ok"] is False
    assert "reload failed" in daemon.log_text()
    with Traffic(hosts) as traffic:
        pass
    assert {len(payload) for payload in traffic.received} == {8 + 13}


def test_rules_the_kernel_refuses_change_nothing(daemon: LiveDaemon, hosts: Hosts) -> None:
    """A cgroup's path that is too long for a rule is found when the engine has the new chains."""
    daemon.start()
    daemon.layer45("exec", "voice", "--", "true")
    rules = daemon.rules()
    first, second, third = ("a" * 200, f"{'a' * 200}/{'b' * 200}", f"{'a' * 200}/{'b' * 200}/{'c' * 200}")
    with new_cgroups(first, second, third) as (*_, path):
        daemon.policies(PLAIN + DEEP.format(path))
        assert "iptables-restore" in daemon.layer45("reload", status=1)
    assert daemon.rules() == rules
    assert [queue["number"] for queue in daemon.json("status")["queues"]] == [4500]
    assert daemon.cgroups() == [".", "voice"]
    daemon.policies(PLAIN + CLOSED_OTHER)
    daemon.layer45("reload")
    assert len(daemon.json("status")["queues"]) == 2


def test_sighup_reloads(daemon: LiveDaemon) -> None:
    daemon.start()
    daemon.policies(PLAIN + OTHER)
    assert daemon.process is not None
    os.kill(daemon.process.pid, signal.SIGHUP)
    until = time.monotonic() + 10
    while daemon.json("status")["generation"] != 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert [policy["name"] for policy in daemon.json("status")["policies"]] == ["other", "voice"]
    daemon.policies("nonsense")
    os.kill(daemon.process.pid, signal.SIGHUP)
    while "reload failed" not in daemon.log_text() and time.monotonic() < until:
        time.sleep(0.05)
    assert daemon.json("status")["generation"] == 2


def test_settings_need_a_restart(daemon: LiveDaemon) -> None:
    daemon.start()
    daemon.settings(workers=2)
    assert "layer45.toml: workers: it was 1" in daemon.layer45("reload", status=1)
    daemon.end()
    daemon.start()
    assert len(daemon.json("status")["queues"]) == 2


MODULE_CODE = """
class Module:
    def __init__(self, parameters, count): ...
    def egress(self, packet):
        packet.payload += b"%s"
    def ingress(self, packet): ...
"""


def test_a_python_module_that_was_edited_runs_after_a_reload(
    daemon: LiveDaemon, hosts: Hosts, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    words = ["modules", "new", "stamp", "--language", "python", "--directory", str(site)]
    hosts.a.run([*LAYER45, *words])
    daemon.settings(module_dirs=[str(site)])
    daemon.policies(PLAIN + 'chain = [ { module = "stamp" } ]\n')
    endings = []
    for text in ("one", "two"):
        (site / "stamp/stamp.py").write_text(MODULE_CODE % text)
        if daemon.process is None:
            daemon.start()
        else:
            daemon.layer45("reload")
        with Traffic(hosts) as traffic:
            pass
        endings.append({payload[8:] for payload in traffic.received})
    assert endings == [{b"one"}, {b"two"}]
    (site / "stamp/stamp.py").write_text("1 +")
    assert "stamp.py:1: cannot be loaded: SyntaxError" in daemon.layer45("reload", status=1)
    with Traffic(hosts) as traffic:
        pass
    assert {payload[8:] for payload in traffic.received} == {b"two"}
