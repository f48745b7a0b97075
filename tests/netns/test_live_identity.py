"""Who a program is: names that change, threads, exec, scripts, and sockets that go from hand to hand.

a: actors under policies by name and by executable ── tag ──▶ wire ──▶ b: what came
"""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from layer45.control_client import ask
from layer45.control_messages import Attach, Explain, Sockets
from layer45.errors import Layer45Error

from .actors import LISTEN, Actor, Sink, interpreter
from .daemons import Daemon, assert_balanced, running
from .streams import stats
from .topology import Hosts

pytestmark = pytest.mark.root

MAKE = "end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
SEND = "end.sendto(b'datagram', {})"
NAME = "open('/proc/self/comm', 'w').write('{}')"
THREAD = """
def work():
    ctypes.CDLL(None).prctl(15, b"{}")  # PR_SET_NAME: of this thread
    global end
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
each = threading.Thread(target=work)
each.start()
each.join()
"""


def policies(directory: Path) -> str:
    """`phone` by name, with an x; `pager` by its executable, with a y."""
    return "".join(
        f"[policy.{name}]\npriority = {priority}\n"
        f'match = {{ protocol = "udp", program = "{program}" }}\n'
        f'chain = [ {{ module = "tag", id = "{tag}" }} ]\n'
        for name, priority, program, tag in (("name", 2, "phone", "x"), ("path", 1, directory / "pager", "y"))
    )


@contextlib.contextmanager
def scene(hosts: Hosts, directory: Path) -> Iterator[tuple[Daemon, Sink]]:
    """The daemon, and the far end."""
    interpreter(directory, "pager")
    with running(hosts.a, policies(directory)) as a, Sink(hosts.b) as sink:
        yield a, sink
        assert_balanced(stats(a))


def tag_of(sink: Sink, actor: Actor) -> str:
    """Of a datagram from its socket: "x", "y", or none."""
    actor.do(SEND.format(sink.address))
    return sink.hear()[8:9].decode()


def test_names_that_change(hosts: Hosts, tmp_path: Path) -> None:
    """What counts is the process's name when the socket is made; for an executable, no name counts."""
    with scene(hosts, tmp_path) as (_, sink):
        cases = {  # executable, what it does, the tag
            "keeps it": ("phone", [MAKE, NAME.format("other")], "x"),
            "too late": ("other", [MAKE, NAME.format("phone")], ""),
            "gives it up": ("phone", [NAME.format("other"), MAKE], ""),
            "takes it": ("other", [NAME.format("phone"), MAKE], "x"),
            "has an executable, too": ("pager", [NAME.format("other"), MAKE], "y"),
            "takes it, and has one": ("pager", [NAME.format("phone"), MAKE], "x"),  # the higher priority
            "its thread has another": ("phone", [THREAD.format("worker")], "x"),
            "only its thread has it": ("other", [THREAD.format("phone")], ""),
            "cut to 15 bytes": ("phone", [NAME.format("phone-of-a-very-long-name"), MAKE], ""),
        }
        for case, (name, steps, tag) in cases.items():
            with Actor(hosts.a, interpreter(tmp_path, name)) as actor:
                for step in steps:
                    actor.do(step)
                assert tag_of(sink, actor) == tag, case


def test_exec_behind_the_socket_and_fork(hosts: Hosts, tmp_path: Path) -> None:
    """The socket keeps what its maker was; what comes behind the exec is the new program's. So is a fork."""
    phone, other = interpreter(tmp_path, "phone"), interpreter(tmp_path, "other")
    with scene(hosts, tmp_path) as (_, sink), Actor(hosts.a, phone) as actor:
        actor.do(MAKE)
        actor.do("os.set_inheritable(end.fileno(), True)")
        number = actor.do("print(end.fileno())")
        actor.do(f"os.execv({str(other)!r}, ['other', '-c', {LISTEN!r}])")
        actor.do(f"end = socket.socket(fileno={number})")
        assert tag_of(sink, actor) == "x"
        actor.do(MAKE)
        assert tag_of(sink, actor) == ""
    with scene(hosts, tmp_path) as (_, sink), Actor(hosts.a, phone) as actor:
        child = f"{MAKE}\n    {SEND.format(sink.address)}\n    os._exit(0)"
        actor.do(f"pid = os.fork()\nif pid == 0:\n    {child}\nos.waitpid(pid, 0)")
        assert sink.hear()[8:9] == b"x"


def test_scripts(hosts: Hosts, tmp_path: Path) -> None:
    """A script has its own name if its first line names the interpreter, and env's interpreter's if not."""
    python, env = interpreter(tmp_path, "runner"), tmp_path / "env"
    for directory, first in ((tmp_path / "direct", str(python)), (env, f"/usr/bin/env -S {python}")):
        directory.mkdir()
        script = directory / "phone"
        script.write_text(f"#!{first}\n{LISTEN}")
        script.chmod(0o755)
    with scene(hosts, tmp_path) as (_, sink):
        for directory, tag in ((tmp_path / "direct", "x"), (env, "")):
            with Actor(hosts.a, directory / "phone") as actor:
                actor.do(MAKE)
                assert tag_of(sink, actor) == tag


def test_a_script_as_an_executable_is_told(hosts: Hosts, tmp_path: Path) -> None:
    """The kernel runs its interpreter, so such a policy would select nobody."""
    script = tmp_path / "phone"
    script.write_text("#!/bin/sh\n")
    text = f'[policy.p]\nmatch = {{ program = "{script}" }}\n'
    with running(hosts.a, text) as a:
        status = a.ask("status")
        assert status["tagger"]["on"] and f"{script} is a script" in status["tagger"]["reason"]
        assert "expected its name" in a.log.read_text()


# --- from hand to hand --------------------------------------------------------------------


@contextlib.contextmanager
def hand_over(hosts: Hosts, giver: Path, taker: Path) -> Iterator[tuple[Actor, Actor]]:
    """A socket that one made is the other's, by SCM_RIGHTS; whose, the first has forgotten."""
    here, there = socket.socketpair()
    with (
        here,
        there,
        Actor(hosts.a, giver, fds=[here.fileno()]) as one,
        Actor(hosts.a, taker, fds=[there.fileno()]) as other,
    ):
        one.do(MAKE)
        one.do(f"socket.send_fds(socket.socket(fileno={here.fileno()}), [b'x'], [end.fileno()])")
        other.do(f"way = socket.socket(fileno={there.fileno()})")
        other.do("end = socket.socket(fileno=socket.recv_fds(way, 1, 1)[1][0])")
        yield one, other


def test_sockets_that_are_passed_on(hosts: Hosts, tmp_path: Path) -> None:
    """The maker's policy stays, also when the maker has ended; `sockets` shows who has it; attach works."""
    phone, other = interpreter(tmp_path, "phone"), interpreter(tmp_path, "other")
    with scene(hosts, tmp_path) as (a, sink):
        with hand_over(hosts, phone, other) as (maker, taker):
            assert tag_of(sink, taker) == "x"
            assert shown(a) == [(min(maker.pid, taker.pid), {maker.pid, taker.pid}, ["name"])]
            maker.end()
            assert tag_of(sink, taker) == "x"
            assert shown(a) == [(taker.pid, {taker.pid}, ["name"])]
            (row,) = ask(a.socket, Explain(pid=taker.pid), a.directory)
            assert row["program"] == "other" and row["policies"] == [{"policy": "name", "holds": "yes"}]
        with hand_over(hosts, other, phone) as (_, taker):
            assert tag_of(sink, taker) == ""
            done = ask(a.socket, Attach("name", taker.pid), a.directory)
            assert (done["program"], done["sockets"]) == ("phone", 1)
            assert tag_of(sink, taker) == "x"


def shown(a: Daemon) -> list[tuple[int, set[int], list[str]]]:
    """What `sockets` says of owners and policies."""
    rows = ask(a.socket, Sockets(), a.directory)
    return [(row["pid"], set(row["pids"]), [each["policy"] for each in row["policies"]]) for row in rows]


def test_socket_activation(hosts: Hosts, tmp_path: Path) -> None:
    """A launcher made it: the service that inherits it has no policy by its name, until attach."""
    phone = interpreter(tmp_path, "phone")
    with scene(hosts, tmp_path) as (a, sink), hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind((hosts.a.ipv4, 7009))
        with Actor(hosts.a, phone, fds=[made.fileno()]) as service:
            service.do(f"end = socket.socket(fileno={made.fileno()})")
            assert tag_of(sink, service) == ""
            ask(a.socket, Attach("name", service.pid), a.directory)
            assert tag_of(sink, service) == "x"


# --- numbers that are nobody's ------------------------------------------------------------


def test_a_process_that_is_gone(hosts: Hosts, tmp_path: Path) -> None:
    """One clear line for each command."""
    with scene(hosts, tmp_path) as (a, _):
        with Actor(hosts.a, interpreter(tmp_path, "phone")) as actor:
            actor.do(MAKE)
        for request in (Attach("name", actor.pid), Explain(pid=actor.pid)):
            with pytest.raises(Layer45Error, match=f"^there is no process {actor.pid}$"):
                ask(a.socket, request, a.directory)


# Process 77 is looked up and dies, and another with a socket is 77 then. Runs in a pid namespace of its own.
REUSED = """
import contextlib, os, signal, socket
from layer45.rules.errors import RulesError
from layer45.rules.process_sockets import Process

def born(number):
    open("/proc/sys/kernel/ns_last_pid", "w").write(str(number - 1))
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        os.write(done, b"x")
        signal.pause()
    os.read(ready, 1)
    assert pid == number, pid
    return pid

first = born(77)
process = Process(first)
process.owner()
os.kill(first, 9)
os.waitpid(first, 0)
second = born(77)
for look in (process.owner, lambda: process.sockets().__enter__()):
    try:
        look()
        print("it was taken for the first")
    except RulesError as error:
        print(error)
with contextlib.closing(Process(second)) as process, process.sockets() as found:
    print(len(found.here))
os.kill(second, 9)
"""


def test_a_number_that_is_anothers_meanwhile() -> None:
    """attach holds a descriptor of the process: the next one of its number is not meant."""
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", REUSED]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == ["process 77 has ended", "process 77 has ended", "1"]
