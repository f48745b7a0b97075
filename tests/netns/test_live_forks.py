"""A storm of short-lived processes under a policy by program name, and commands that look at them meanwhile.

a: phone forks 200 processes a second; each makes a socket, asks, hears, ends ──▶ wire ──▶ b: an echo server
"""

import itertools
import re
import threading
import time
from pathlib import Path

import pytest

from layer45.control_client import ask
from layer45.control_messages import Attach, Explain, Request, Sockets
from layer45.errors import Layer45Error

from .actors import Actor, interpreter
from .daemons import Daemon, assert_balanced, running
from .datagrams import echo
from .streams import counters, stats
from .topology import Hosts

pytestmark = pytest.mark.root

SECONDS, A_SECOND = 3, 200
# Each child exits with 0 when its first datagram came back; the numbers of those that run stand in a file.
STORM = """
failed = count = 0
begun = time.monotonic()
running = {{}}
while (now := time.monotonic() - begun) < {seconds} or running:
    while now < {seconds} and count < now * {a_second}:
        count += 1
        pid = os.fork()
        if pid == 0:
            end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            end.settimeout(5)
            end.sendto(b"first", {address})
            os._exit(end.recv(100) != b"first")
        running[pid] = True
    open({list!r}, "w").write(" ".join(map(str, running)))
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            break
        del running[pid]
        failed += status != 0
    time.sleep(0.002)
print(count, failed)
"""
SERVER = '[policy.server]\npath = "queue"\nmatch = { protocol = "udp", local_port = 7001 }\n'
CHAIN = 'chain = [ { module = "tag", id = "x", unmarked = "drop" } ]\n'
CLIENT = f'[policy.client]\nmatch = {{ protocol = "udp", program = "phone" }}\n{CHAIN}'
ONE_LINE = re.compile(r"there is no process \d+|process \d+ has ended|process \d+ \(.*\) has no bound .*")


class Looker:
    """Asks for sockets, reasons and tags while the storm lasts. slowest: an answer, in seconds."""

    def __init__(self, daemon: Daemon, running: Path, parent: int) -> None:
        self._daemon, self._running, self._parent = daemon, running, parent
        self._ended = threading.Event()
        self.answers, self.slowest = 0, 0.0
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for turn in itertools.count():
            if self._ended.is_set():
                return
            pids = self._running.read_text().split() if self._running.exists() else []
            pid = int(pids[-1]) if pids else self._parent
            self._ask((Sockets(True), Explain(pid=pid), Attach("client", pid))[turn % 3])

    def _ask(self, request: Request) -> None:
        begun = time.monotonic()
        try:
            ask(self._daemon.socket, request, self._daemon.directory)
        except Layer45Error as error:
            if not ONE_LINE.fullmatch(str(error)):
                self.wrong.append(str(error))
        self.answers += 1
        self.slowest = max(self.slowest, time.monotonic() - begun)

    def __enter__(self) -> "Looker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def used(daemon: Daemon) -> tuple[int, int]:
    """Its open descriptors, and its resident memory in KiB."""
    assert daemon.process is not None
    directory = Path(f"/proc/{daemon.process.pid}")
    found = re.search(r"VmRSS:\s+(\d+)", (directory / "status").read_text())
    assert found
    return len(list((directory / "fd").iterdir())), int(found[1])


def test_a_fork_storm(hosts: Hosts, tmp_path: Path) -> None:
    """Every first packet is customized: what came without a tag would be dropped at the other end."""
    with (
        running(hosts.a, CLIENT) as a,
        running(hosts.b, SERVER + CHAIN) as b,
        echo(hosts.b, 7001),
        Actor(hosts.a, interpreter(tmp_path, "phone")) as phone,
    ):
        ask(a.socket, Sockets(True), a.directory)  # what is loaded when it is first used
        before = used(a)
        with Looker(a, tmp_path / "running", phone.pid) as looker:
            code = STORM.format(
                seconds=SECONDS,
                a_second=A_SECOND,
                address=(hosts.b.ipv4, 7001),
                list=str(tmp_path / "running"),
            )
            count, failed = map(int, phone.do(code).split())
        after = used(a)
        assert failed == 0 and count > SECONDS * A_SECOND * 0.9
        assert counters(a, "client", "tag")["tagged"] == counters(b, "server", "tag")["stripped"] == count
        assert counters(b, "server", "tag")["unmarked"] == counters(a, "client", "tag")["unmarked"] == 0
        assert looker.wrong == [] and looker.answers > 10
        assert looker.slowest < 2, looker.slowest
        assert after[0] <= before[0] + 2 and after[1] < before[1] + 8000, (before, after)
        print(
            print(f"{count} processes, {looker.answers} answers in {looker.slowest:.2f} s, {before} {after}")
        )
        assert_balanced(stats(a))
