"""What a running daemon may do, as the kernel tells it from outside, and that everything works with that."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .daemons import eventually
from .live_daemon import VOICE, LiveDaemon, live_daemon
from .topology import Host, Hosts

pytestmark = pytest.mark.root

# linux/capability.h
DAC_OVERRIDE, DAC_READ_SEARCH, NET_ADMIN, NET_RAW = 1, 2, 12, 13
SYS_PTRACE, SYS_ADMIN, PERFMON, BPF = 19, 21, 38, 39
CHOWN, SETPCAP, SYS_MODULE, SYS_RESOURCE = 0, 8, 16, 24
NOBODY = 65534
SYSTEM_CALLS_FILTERED = "2"


def bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


CONTROL = bits(NET_ADMIN, NET_RAW, PERFMON, BPF)
RAISABLE = bits(DAC_OVERRIDE, DAC_READ_SEARCH, SYS_PTRACE)
STARTING = bits(CHOWN, SETPCAP, SYS_MODULE, SYS_RESOURCE)
CHILDREN = bits(NET_ADMIN, NET_RAW, BPF)


@pytest.fixture
def daemon(hosts: Hosts, tmp_path: Path) -> Iterator[LiveDaemon]:
    with live_daemon(hosts.a, tmp_path / "a") as found:
        yield found


def threads(daemon: LiveDaemon) -> list[dict[str, str]]:
    """The daemon's threads, the main one first."""
    assert daemon.process is not None
    tasks = sorted(Path(f"/proc/{daemon.process.pid}/task").iterdir(), key=lambda path: int(path.name))
    texts = [(task / "status").read_text() for task in tasks]
    return [dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE)) for text in texts]


def capabilities(status: dict[str, str]) -> tuple[int, ...]:
    """Permitted, effective, bounding."""
    return tuple(int(status[key], 16) for key in ("CapPrm", "CapEff", "CapBnd"))


def own_file_system() -> int:
    """Where the host has no BPF file system, the daemon may have to mount one of its own."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return 0 if any(row[2] == "bpf" and "/run/layer45" not in row[1] for row in mounts) else bits(SYS_ADMIN)


def test_each_thread_has_what_it_needs(daemon: LiveDaemon) -> None:
    daemon.settings(workers=2)
    daemon.start()
    main, *others = threads(daemon)
    assert capabilities(main) == (0, 0, 0)
    workers = [each for each in others if each["Seccomp"] == SYSTEM_CALLS_FILTERED]
    assert [capabilities(each) for each in workers] == [(bits(NET_ADMIN), bits(NET_ADMIN), CHILDREN)] * 2
    control, launcher = sorted((each for each in others if each not in workers), key=capabilities)
    may_raise = RAISABLE | own_file_system()
    assert capabilities(control) == (CONTROL | may_raise, CONTROL, CHILDREN)
    ours = int(re.findall(r"CapPrm:\s*(\w+)", Path("/proc/self/status").read_text())[0], 16)
    may_start = (CONTROL | may_raise | STARTING) & ours
    assert capabilities(launcher) == (may_start, 0, may_start)
    for status in (main, *others):
        assert (status["NoNewPrivs"], int(status["CapInh"], 16), int(status["CapAmb"], 16)) == ("1", 0, 0)


def test_status_tells_what_the_kernel_tells(daemon: LiveDaemon) -> None:
    daemon.start()
    told = daemon.json("status")["privileges"]
    assert told["problems"] == []
    kinds = {each["thread"]: each for each in told["threads"]}
    assert {name: each["count"] for name, each in kinds.items()} == {
        "main": 1, "launcher": 1, "control": 1, "worker": 1,
    }  # fmt: skip
    assert kinds["main"]["effective"] == kinds["main"]["raisable"] == []
    assert kinds["control"]["effective"] == ["bpf", "net_admin", "net_raw", "perfmon"]
    assert kinds["control"]["bounding"] == ["bpf", "net_admin", "net_raw"]
    assert {"sys_ptrace", "dac_read_search"} <= set(kinds["control"]["raisable"])
    assert (kinds["worker"]["effective"], kinds["worker"]["seccomp"]) == (["net_admin"], "filter")
    text = daemon.layer45("status")
    assert "privileges  worker: net_admin, system calls filtered\n" in text
    assert "privileges  main: none\n" in text


def test_workers_that_a_reload_brings_are_confined_too(daemon: LiveDaemon) -> None:
    daemon.start()
    closed = VOICE.replace("voice", "other").replace("5000", "5001") + 'on_failure = "closed"\n'
    daemon.policies(VOICE + closed)
    daemon.layer45("reload")
    workers = [each for each in threads(daemon) if each["Seccomp"] == SYSTEM_CALLS_FILTERED]
    assert [capabilities(each) for each in workers] == [(bits(NET_ADMIN), bits(NET_ADMIN), CHILDREN)] * 2


def test_programs_that_it_runs_have_less_than_itself(daemon: LiveDaemon, tmp_path: Path) -> None:
    seen, shim = tmp_path / "seen", tmp_path / "programs"
    shim.mkdir()
    for name in ("iptables-restore", "ip6tables-restore", "iptables-save", "ip6tables-save", "nft"):
        real = shutil.which(name)
        assert real
        lines = ("#!/bin/sh", f"grep -E 'CapEff|NoNewPrivs' /proc/self/status >> {seen}", f'exec {real} "$@"')
        (shim / name).write_text("\n".join(lines) + "\n")
        (shim / name).chmod(0o755)
    daemon.start(PATH=f"{shim}:{os.environ['PATH']}")
    seen.unlink()
    daemon.layer45("reload")
    assert set(seen.read_text().splitlines()) == {f"CapEff:\t{CHILDREN:016x}", "NoNewPrivs:\t1"}


@pytest.mark.parametrize(
    "more", [(), ("chown", "kill", "setuid", "setgid", "setpcap", "mknod")], ids=["few", "docker"]
)
def test_with_less_from_the_beginning(daemon: LiveDaemon, hosts: Hosts, more: tuple[str, ...]) -> None:
    """As in a container: it makes do, and tells."""
    given = ("net_admin", "net_raw", "dac_override", *more)
    daemon.wrapper = ["setpriv", f"--bounding-set=-all,+{',+'.join(given)}"]
    daemon.policies(VOICE + '[policy.other]\npriority = 1\nmatch = { program = ["phone"] }\n')
    daemon.start()
    with hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (hosts.b.ipv4, 5000))
    eventually(lambda: daemon.json("stats")["policies"]["voice"]["packets"] == 1)
    status = daemon.json("status")
    (control,) = (each for each in status["privileges"]["threads"] if each["thread"] == "control")
    assert (control["effective"], control["raisable"]) == (["net_admin", "net_raw"], ["dac_override"])
    assert status["tagger"]["on"] is False and "not permitted" in status["tagger"]["reason"]
    workers = [each for each in threads(daemon) if each["Seccomp"] == SYSTEM_CALLS_FILTERED]
    assert {capabilities(each)[:2] for each in workers} == {(bits(NET_ADMIN), bits(NET_ADMIN))}
    daemon.layer45("reload")
    assert daemon.end() == 0


# ---- modules in Python

REACHING = """
import os, subprocess, socket

WAYS = {
    "write": lambda: open(PATH, "w"),
    "append": lambda: open("/etc/hostname", "a"),
    "remove": lambda: os.unlink(KEPT),
    "program": lambda: subprocess.run(["touch", PATH]),
    "shell": lambda: os.system("touch " + PATH) and 1 / 0,
    "fork": os.fork,
    "exec": lambda: os.execv("/usr/bin/touch", ["touch", PATH]),
    "socket": socket.socket,
    "signal": lambda: os.kill(os.getppid(), 0),
    "user": lambda: os.setuid(65534),
}


class Module:
    def __init__(self, parameters, count): ...

    def egress(self, packet):
        name = packet.payload.decode()
        try:
            WAYS[name]()
            packet.payload = b"done"
        except ZeroDivisionError:
            packet.payload = b"failed"
        except OSError as error:
            packet.payload = type(error).__name__.encode()
"""
LIVING = """
import os, threading, time


class Module:
    def __init__(self, parameters, count): ...

    def egress(self, packet):
        import decimal, fractions, random, string
        time.sleep(0.001)
        block = [bytearray(100_000) for _ in range(100)]
        thread = threading.Thread(target=block.clear)
        thread.start()
        thread.join()
        try:
            raise ValueError(os.urandom(4))
        except ValueError:
            read = len(open("/proc/self/status").read()) > 10
            packet.payload += b" %d %s %d" % (len(block), str(decimal.Decimal("0.5") + 1).encode(), read)
"""


def site_module(daemon: LiveDaemon, directory: Path, code: str) -> None:
    """A module in Python, and a policy with it."""
    daemon.host.run(
        [
            *daemon.command("modules")[:-2],
            "new",
            "probe",
            "--language",
            "python",
            "--directory",
            str(directory),
        ]
    )
    (directory / "probe" / "probe.py").write_text(code)
    daemon.settings(module_dirs=[str(directory)])
    daemon.policies(VOICE + 'chain = [ { module = "probe" } ]\n')


@contextlib.contextmanager
def receiver(host: Host) -> Iterator[socket.socket]:
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind((host.ipv4, 5000))
        found.settimeout(10)
        yield found


def test_a_python_module_reaches_no_file_program_socket_or_process(
    daemon: LiveDaemon, hosts: Hosts, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.write_text("")
    head = f"PATH, KEPT = {str(tmp_path / 'made')!r}, {str(kept)!r}\n"
    site_module(daemon, tmp_path / "site", head + REACHING)
    daemon.start()
    answers = {}
    ways = ("write", "append", "remove", "program", "shell", "fork", "exec", "socket", "signal", "user")
    with receiver(hosts.b) as heard, hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for way in ways:
            sender.sendto(way.encode(), (hosts.b.ipv4, 5000))
            answers[way] = heard.recv(100).decode()
    expected = dict.fromkeys(ways, "PermissionError") | {"shell": "failed"}
    assert answers == expected
    assert kept.exists() and not (tmp_path / "made").exists()
    assert daemon.json("status")["queues"][0]["alive"] and daemon.end() == 0


def test_a_python_module_lives_as_in_any_other_thread(
    daemon: LiveDaemon, hosts: Hosts, tmp_path: Path
) -> None:
    site_module(daemon, tmp_path / "site", LIVING)
    daemon.start()
    with receiver(hosts.b) as heard, hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(20):
            sender.sendto(b"%d" % number, (hosts.b.ipv4, 5000))
            assert heard.recv(100) == b"%d 0 1.5 1" % number
    assert daemon.json("stats")["engine"]["module_errors"] == 0


# ---- other users' processes

TALKER = """
import socket, sys, time
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.connect((sys.argv[1], 5000))
print("ready", flush=True)
time.sleep(100)
"""


@contextlib.contextmanager
def talker(hosts: Hosts, home: Path) -> Iterator[tuple[subprocess.Popen[Any], Path]]:
    """Another user's program, in a directory that is theirs alone, with a socket it has had since before."""
    program = home / "phone"
    shutil.copy(Path(sys.executable).resolve(), program)
    os.chown(home, NOBODY, NOBODY)
    os.chown(program, NOBODY, NOBODY)
    home.chmod(0o700)
    program.chmod(0o700)
    words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", program, "-c", TALKER]
    process = hosts.a.popen([*map(str, words), hosts.b.ipv4], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process, program
    finally:
        process.kill()


def test_another_users_program_in_a_directory_of_their_own(daemon: LiveDaemon, hosts: Hosts) -> None:
    """attach, sockets, explain, apply_now: others' processes are closed to them without SYS_PTRACE."""
    home = Path("/var/tmp") / f"layer45-test-{os.getpid()}"  # whose parents all can pass
    home.mkdir()
    try:
        with talker(hosts, home) as (process, program):
            chosen = f'match = {{ protocol = "udp", program = ["{program}"] }}\n'
            daemon.policies(f"[policy.voice]\n{chosen}")
            daemon.start()
            assert "missing" not in daemon.log_text()
            listed = [each for each in daemon.json("sockets", "--all") if each["pid"] == process.pid]
            assert [(each["program"], each["tag"]["state"]) for each in listed] == [("phone", "unseen")]
            done = daemon.json("attach", "voice", "--pid", str(process.pid))
            assert (done["sockets"], done["program"]) == (1, "phone")
            (row,) = daemon.json("explain", "--pid", str(process.pid))
            assert [each["holds"] for each in row["answers"] if each["by"] == "match"] == ["yes"]
            daemon.layer45("detach", "voice", "--pid", str(process.pid))
            daemon.policies(f"[policy.voice]\n{chosen}apply_now = true\n")
            daemon.layer45("reload")
            (row,) = daemon.json("explain", "--pid", str(process.pid))
            assert row["tag"]["state"] == "seen"
        main, *others = threads(daemon)
        low = CONTROL | bits(NET_ADMIN)
        assert all(capabilities(each)[1] & ~low == 0 for each in (main, *others))
    finally:
        shutil.rmtree(home)


def test_an_executable_that_comes_later_is_found(daemon: LiveDaemon, tmp_path: Path) -> None:
    """Each second it is looked for: the control thread, long after it gave up what it had at the start."""
    home, program = tmp_path / "home", tmp_path / "home" / "phone"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    daemon.policies(f'[policy.voice]\nmatch = {{ program = ["{program}"] }}\n')
    daemon.start()
    assert f"paths={program}" in daemon.log_text()
    shutil.copy("/bin/true", program)
    eventually(lambda: 'event="programs were found anew"' in daemon.log_text(), 5)
    assert json.loads(daemon.layer45("status", "--json"))["tagger"] == {"on": True, "reason": ""}
