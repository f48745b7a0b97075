"""Sockets that were open before: attach, detach, and apply_now at a reload.

a: a program that sends numbered datagrams since before the daemon ──▶ wire ──▶ b: what came, in a capture
"""

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .daemons import Daemon, assert_balanced, assert_no_checksum_errors, eventually, running
from .datagrams import FAMILIES
from .topology import Host, Hosts

pytestmark = pytest.mark.root

# Sends a datagram each 2 ms over IPv4 and IPv6, and holds a TCP listener with a connection to it.
SENDER = """
import socket, sys, time
ends = []
for family, address in zip((socket.AF_INET, socket.AF_INET6), sys.argv[1:]):
    end = socket.socket(family, socket.SOCK_DGRAM)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x40000)
    end.connect((address, 7001))
    ends.append((end, end.dup()))
listener = socket.create_server(("127.0.0.1", 7002))
client = socket.create_connection(("127.0.0.1", 7002))
other = socket.socketpair()
print("ready", flush=True)
while True:
    for end, _ in ends:
        try:
            end.send(b"datagram")
        except OSError:
            pass
    time.sleep(0.002)
"""
ECHO_TCP = """
import select, socket, sys
server = socket.create_server((sys.argv[1], 7003))
print("ready", flush=True)
ends = [server]
while True:
    for end in select.select(ends, [], [])[0]:
        if end is server:
            ends.append(server.accept()[0])
        elif not (text := end.recv(4096)):
            ends.remove(end)
        else:
            end.sendall(text)
"""
SOCKETS = 4  # two that send, the listener, its client


def policy(match: str, rest: str = "") -> str:
    chain = '{ module = "tag", id = "old" }'
    return f"[policy.voice]\nmatch = {match}\nchain = [ {chain} ]\n{rest}\n"


def by_program(program: object, rest: str = "") -> str:
    return policy(f'{{ protocol = "udp", program = "{program}" }}', rest)


@contextlib.contextmanager
def sender(host: Host, peer: Host, directory: Path, name: str = "phone") -> Iterator[subprocess.Popen[str]]:
    """The program, while it sends; its process's number is that of nsenter, which it takes the place of."""
    executable = directory / name
    if not executable.exists():
        shutil.copy(Path(sys.executable).resolve(), executable)
    process = host.popen([str(executable), "-c", SENDER, peer.ipv4, peer.ipv6], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


def wire(hosts: Hosts) -> dict[int, set[bytes]]:
    """What arrives now, by family."""
    found: dict[int, set[bytes]] = {}
    for family in FAMILIES:
        with hosts.b.socket(family, socket.SOCK_DGRAM) as end:
            end.settimeout(3)
            end.bind((hosts.b.address(family), 7001))
            found[family] = {end.recv(100)[8:11] for _ in range(20)}
    return found


V4 = socket.AF_INET
PLAIN = {family: {b""} for family in FAMILIES}
CUSTOMIZED = {family: {b"old"} for family in FAMILIES}


def refused(daemon: Daemon, *words: object) -> str:
    """The one line of a command that fails."""
    done = daemon.host.run(daemon.command(*map(str, words)), check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done
    return str(done.stderr).removeprefix("layer45: ").rstrip("\n")


@pytest.mark.parametrize("by", ["name", "executable"])
def test_attach_and_detach_while_it_sends(hosts: Hosts, tmp_path: Path, by: str) -> None:
    """Other bits of the marks stay; sockets that are duplicates count once; other kinds are left alone."""
    with (
        sender(hosts.a, hosts.b, tmp_path) as phone,
        running(hosts.a, by_program("phone" if by == "name" else tmp_path / "phone")) as a,
    ):
        assert wire(hosts) == PLAIN and a.engine()["received"] == 0
        done = a.ask("attach", "voice", "--pid", str(phone.pid))
        assert done == {
            "policy": "voice", "pid": phone.pid, "program": "phone",
            "sockets": SOCKETS, "connections": 1, "elsewhere": 0, "also": [], "note": "",
        }  # fmt: skip
        assert wire(hosts) == CUSTOMIZED
        marks = hosts.a.run(["ss", "-Hn", "--udp", "-e", "dport", "=", "7001"]).stdout
        assert marks.count("fwmark:0x4") == 2
        assert a.ask("detach", "voice", "--pid", str(phone.pid))["sockets"] == SOCKETS
        assert wire(hosts) == PLAIN
        text = hosts.a.run(a.command("attach", "voice", "--pid", str(phone.pid))).stdout.splitlines()
        assert text == [
            f"voice: {SOCKETS} sockets of phone (pid {phone.pid}) tagged",
            "kept as it was: 1 TCP connection among them",
        ]
        assert wire(hosts) == CUSTOMIZED
        assert_balanced(a.stats())
    assert_no_checksum_errors(*hosts)


def test_apply_now_at_the_start_and_at_a_reload(hosts: Hosts, tmp_path: Path) -> None:
    """Of those who run already, the program that the policy names, and no other; without it, none."""
    apply = "apply_now = true"
    with (
        sender(hosts.a, hosts.b, tmp_path) as phone,
        running(hosts.a, by_program("phone", apply)) as a,
    ):
        assert wire(hosts) == CUSTOMIZED
        a.reload(by_program("nobody", apply))
        assert wire(hosts) == PLAIN
        a.reload(by_program("phone") + '[policy.more]\nmatch = { protocol = "tcp", program = "x" }\n')
        assert wire(hosts) == CUSTOMIZED  # the tag says still that the name holds
        a.ask("detach", "voice", "--pid", str(phone.pid))
        a.reload()
        assert wire(hosts) == PLAIN
        a.reload(by_program("phone", apply))
        assert wire(hosts) == CUSTOMIZED
        assert f"sockets={SOCKETS}" in a.log.read_text()


def test_a_process_of_another_namespace_is_not_touched(hosts: Hosts, tmp_path: Path) -> None:
    """Not by attach, and not by apply_now: both hosts see the same processes."""
    with (
        sender(hosts.b, hosts.a, tmp_path) as other,
        running(hosts.a, by_program("phone", "apply_now = true")) as a,
    ):
        assert refused(a, "attach", "voice", "--pid", other.pid) == (
            f"process {other.pid} (phone): its {SOCKETS} sockets are in other network namespaces, "
            "which this daemon's rules do not see; run a daemon there"
        )
        seen = hosts.b.run(["ss", "-Hn", "--udp", "-e", "dport", "=", "7001"]).stdout
        assert seen.count("fwmark:0x40000 ") == 2, seen


def test_what_cannot_be_attached_is_said_in_one_line(hosts: Hosts, tmp_path: Path) -> None:
    text = by_program("nobody", "priority = 4") + '[policy.spare]\nstate = "standby"\n[policy.exec]\n'
    text += '[policy.any]\nmatch = { protocol = "udp", remote_port = [9] }\n'
    text += "[policy.root]\npriority = 3\n"
    text += 'match = { protocol = "tcp", user = 0, unless = { program = "phone" } }\n'
    text += '[policy.user]\nmatch = { protocol = "tcp", user = 0, remote_port = 9 }\npriority = 1\n'
    with sender(hosts.a, hosts.b, tmp_path) as phone, running(hosts.a, text) as a:
        who = f"process {phone.pid} (phone)"
        no = 'policy "{}" does not select ' + who
        expected = {
            "voice": f"{no}: program is phone ({tmp_path}/phone), expected nobody",
            "exec": 'policy "{}" has no match: only programs that layer45 exec starts have it',
            "root": f"{no}: unless is met by it, expected not to be",
            "vioce": 'no policy "vioce", did you mean "voice"?',
            "spare": 'policy "spare" is on standby; run: layer45 activate spare',
        }
        for name, line in expected.items():
            assert refused(a, "attach", name, "--pid", phone.pid) == line.format(name)
        assert a.ask("attach", "any", "--pid", str(phone.pid))["note"] == (
            'policy "any" asks for no owner, so it has open sockets already: nothing to do'
        )
        assert refused(a, "detach", "user", "--pid", phone.pid) == (
            f'policy "user" has the sockets of {who} by user, '
            "not by program: that cannot be taken from open ones"
        )
        assert wire(hosts) == PLAIN
        thread = max(int(each.name) for each in Path(f"/proc/{a.process.pid}/task").iterdir())  # type: ignore[union-attr]
        assert refused(a, "attach", "voice", "--pid", thread) == (
            f"{thread} is a thread of process {a.process.pid}; expected the process"  # type: ignore[union-attr]
        )
        assert refused(a, "attach", "voice", "--pid", 4194304) == "there is no process 4194304"
        done = hosts.a.run(a.command("attach", "voice", "--pid", "0"), check=False)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_one_that_has_ended_but_was_not_waited_for(hosts: Hosts) -> None:
    with running(hosts.a, by_program("true")) as a:
        zombie = subprocess.Popen(["true"])
        eventually(lambda: "Z (zombie)" in Path(f"/proc/{zombie.pid}/status").read_text())
        assert refused(a, "attach", "voice", "--pid", zombie.pid) == f"process {zombie.pid} has ended"
        zombie.wait()


def _said(client: socket.socket, text: bytes) -> bool:
    client.sendall(text)
    return client.recv(len(text), socket.MSG_WAITALL) == text


def test_a_servers_connections_keep_what_their_syn_decided(hosts: Hosts, tmp_path: Path) -> None:
    """One from before attach goes on as it is; the next is customized, and goes on so behind detach."""
    chain = 'chain = [ { module = "scramble", key = "sixteen bytes it is" } ]\n'
    to = f'[policy.web]\nmatch = {{ protocol = "tcp", remote_port = [7003] }}\n{chain}'
    by = f'[policy.web]\nmatch = {{ protocol = "tcp", program = "served" }}\n{chain}'
    served = Path(shutil.copy(Path(sys.executable).resolve(), tmp_path / "served"))
    server = hosts.b.popen([str(served), "-c", ECHO_TCP, hosts.b.ipv4], stdout=subprocess.PIPE)
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    with running(hosts.a, to) as a, running(hosts.b, by) as b, contextlib.ExitStack() as clients:
        older, newer, last = (clients.enter_context(hosts.a.socket(V4, socket.SOCK_STREAM)) for _ in range(3))
        counted = []
        for client, command in ((older, "attach"), (newer, "detach"), (last, "")):
            client.settimeout(5)
            client.connect((hosts.b.ipv4, 7003))
            assert all(_said(each, b"some words " * 90) for each in (older, newer, last)[: len(counted) + 1])
            counted.append((a.engine()["connections_customized"], b.engine()["connections_customized"]))
            if command:
                assert b.ask(command, "web", "--pid", str(server.pid))["connections"] == len(counted)
        assert counted == [(0, 0), (1, 1), (1, 1)]
        with hosts.b.capture("tcp") as capture:
            assert _said(newer, b"not to be read") and _said(older, b"for everybody")
        assert b"for everybody" in capture.content and b"not to be" not in capture.content
        found = {
            each["remote"]: each["policies"] for each in b.ask("sockets", "--all") if each["remote"] != "*:*"
        }
        assert sorted(map(len, found.values())) == [0, 0, 1]


def test_detach_says_which_other_policies_go_with_it(hosts: Hosts, tmp_path: Path) -> None:
    """Two that ask for the same program are one to a tag; what asks for another thing stays."""
    text = by_program("phone", "priority = 3")
    text += '[policy.twin]\nmatch = { protocol = "tcp", program = "phone" }\n'
    text += "[policy.path]\npriority = 1\n"
    text += f'match = {{ protocol = "udp", program = "{tmp_path}/phone" }}\n'
    with sender(hosts.a, hosts.b, tmp_path) as phone, running(hosts.a, text) as a:
        assert a.ask("detach", "voice", "--pid", str(phone.pid))["also"] == ["twin"]
        (ipv4, _) = (each for each in a.ask("sockets") if each["protocol"] == "udp")
        assert ipv4["policies"] == [{"policy": "path", "holds": "yes"}] and ipv4["tag"]["policies"] == [
            "path"
        ]
        assert wire(hosts) == PLAIN and a.policy("path")["packets"] > 0


def test_apply_now_and_a_socket_that_two_processes_have(hosts: Hosts, tmp_path: Path) -> None:
    """A launcher's socket that was passed on: the process that the policy selects gets it its tag."""
    executable = Path(shutil.copy(Path(sys.executable).resolve(), tmp_path / "phone"))
    with hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as shared:
        process = hosts.a.popen(
            [str(executable), "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[shared.fileno()]
        )
        eventually(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "phone\n")
        with running(hosts.a, by_program("phone", "apply_now = true")) as a:
            assert "processes=1 sockets=1" in a.log.read_text()
            tag = shared.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)
            assert tag and a.ask("detach", "voice", "--pid", str(process.pid))["sockets"] == 1
            assert shared.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0
        process.communicate("\n")
