"""The daemon as layer45.service runs it (sandbox.py): all that it does, it does in there, too.

mount namespace "host": /sys/fs/bpf, as systemd has it     ⊃     the daemon's, where all else is read-only
network namespace a: the daemon, its programs  ── wire ──  b: their peers
"""

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from layer45.cgroups import mount_point
from layer45.processors import usable

from .daemons import ruleset
from .live_daemon import LiveDaemon, live_daemon
from .sandbox import service
from .topology import Hosts

pytestmark = pytest.mark.root

UDP = """[policy.voice]
match = { protocol = "udp", program = ["phone"] }
chain = [ { module = "tag", id = "x" } ]
"""
TCP = """[policy.web]
match = { protocol = "tcp", remote_port = [5001] }
chain = [ { module = "stream_tag", every_bytes = 100, tag_bytes = 32, id = "host-7" } ]
"""
TALKER = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.connect((sys.argv[1], 5000))
print("ready", flush=True)
for line in sys.stdin:
    try:
        end.send(b"x")
    except ConnectionRefusedError:  # by the one before
        end.send(b"x")
    print("sent", flush=True)
"""
LEGACY = ("iptables", "ip6tables", "iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore")


@contextlib.contextmanager
def host_with_bpf() -> Iterator[int]:
    """A process in a mount namespace of its own, in which a BPF file system is where systemd mounts it."""
    script = "mount --make-rslave / && mount -t bpf bpf /sys/fs/bpf && echo ready && exec sleep 1000"
    command = ["unshare", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
            yield holder.pid
        finally:
            holder.kill()


@pytest.fixture
def host() -> Iterator[int]:
    with host_with_bpf() as pid:
        yield pid


@pytest.fixture
def daemon(hosts: Hosts, tmp_path: Path, host: int) -> Iterator[LiveDaemon]:
    with live_daemon(hosts.a, tmp_path / "a", UDP) as found:
        found.socket.parent.mkdir()
        found.wrapper = [*on(host), sys.executable, "-m", "tests.netns.sandbox", str(found.socket.parent)]
        yield found


def on(host: int) -> list[str]:
    return ["nsenter", f"--mount=/proc/{host}/ns/mnt", f"--wdns={Path.cwd()}", "--"]


def pinned(host: int) -> list[str]:
    """What of ours is in the host's BPF file system."""
    command = [*on(host), "find", "/sys/fs/bpf", "-mindepth", "1", "-path", "*layer45*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@contextlib.contextmanager
def phone(hosts: Hosts, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that was there before the daemon, and sends a datagram when it is told to."""
    program = directory / "phone"
    shutil.copy(Path(sys.executable).resolve(), program)
    words = [str(program), "-c", TALKER, hosts.b.ipv4]
    process = hosts.a.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()


def send(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "sent\n"


def voice_packets(daemon: LiveDaemon) -> int:
    return int(daemon.json("stats")["policies"]["voice"]["packets"])


def talk_tcp(hosts: Hosts) -> None:
    """A connection to a peer without a daemon."""
    with hosts.b.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind((hosts.b.ipv4, 5001))
        server.listen()
        with hosts.a.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect((hosts.b.ipv4, 5001))
            client.sendall(b"over")
            accepted, _ = server.accept()
            with accepted:
                assert accepted.recv(10) == b"over"


def test_a_whole_life(daemon: LiveDaemon, hosts: Hosts, host: int, tmp_path: Path) -> None:
    before = ruleset(hosts.a)
    last = str(max(usable()))
    daemon.settings(worker_cpus=last)
    with phone(hosts, tmp_path) as old:
        daemon.start()
        status = daemon.json("status")
        assert [queue["cpus"] for queue in status["queues"]] == [last]
        assert status["tagger"] == {"on": True, "reason": ""}
        (control,) = (each for each in status["privileges"]["threads"] if each["thread"] == "control")
        assert "sys_admin" not in control["raisable"]  # the host has a BPF file system
        send(old)
        assert voice_packets(daemon) == 0
        assert daemon.json("attach", "voice", "--pid", str(old.pid))["sockets"] == 1
        send(old)
        assert voice_packets(daemon) == 1

        daemon.policies(UDP + TCP)
        daemon.layer45("reload")
        assert any(path.endswith("/map") for path in pinned(host))
        talk_tcp(hosts)
        stats = daemon.json("stats")
        assert stats["engine"]["connections_alone"] == 1 and stats["policies"]["web"]["packets"] > 0

        send_one = f"import socket; socket.socket(2, 2).sendto(b'x', ('{hosts.b.ipv4}', 5009))"
        daemon.layer45("exec", "voice", "--", sys.executable, "-c", send_one)
        assert voice_packets(daemon) == 2
        listed = daemon.json("sockets")
        assert [(row["program"], row["policies"]) for row in listed] == [
            ("phone", [{"policy": "voice", "holds": "yes"}])
        ]
        daemon.layer45("deactivate", "web")
        assert daemon.end() == 0
    assert "Traceback" not in daemon.log_text()
    assert ruleset(hosts.a) == before
    assert pinned(host) == []
    assert not (mount_point() / daemon.cgroup_root).exists()
    assert [path.name for path in daemon.socket.parent.iterdir()] == ["control.sock.inheritance"]


def test_what_a_killed_daemon_leaves_exec_stop_post_takes_away(
    daemon: LiveDaemon, hosts: Hosts, host: int
) -> None:
    before = ruleset(hosts.a)
    daemon.policies(UDP + TCP)
    daemon.start()
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    assert ruleset(hosts.a) != before and pinned(host)
    hosts.a.run([*daemon.wrapper, *daemon.command("rules", "--remove")])
    assert ruleset(hosts.a) == before
    assert pinned(host) == []


@pytest.mark.skipif(not shutil.which("iptables-legacy"), reason="there is no legacy iptables here")
def test_with_legacy_iptables(daemon: LiveDaemon, hosts: Hosts, host: int, tmp_path: Path) -> None:
    """Its lock stands outside of what may be written: the unit makes it beforehand."""
    programs, multi = tmp_path / "programs", shutil.which("xtables-legacy-multi")
    assert multi
    programs.mkdir()
    for name in LEGACY:
        (programs / name).symlink_to(multi)
    subprocess.run([*on(host), "mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    (before,) = service()["ExecStartPre"]
    subprocess.run([*on(host), *shlex.split(before.lstrip("-+"))], check=True)
    daemon.start(PATH=f"{programs}:{os.environ['PATH']}")
    saved = hosts.a.run(["iptables-legacy-save", "-t", "mangle"]).stdout
    assert "NFQUEUE" in saved
    daemon.policies(UDP + TCP)
    daemon.layer45("reload")
    talk_tcp(hosts)
    assert daemon.json("stats")["engine"]["connections_alone"] == 1
    assert daemon.end() == 0
    assert "L45" not in hosts.a.run(["iptables-legacy-save"]).stdout
