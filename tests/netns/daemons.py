"""`layer45 run` in a host, driven from outside: started until it says READY, asked with --json, ended.

    services = [Service("voice", 7001, '{ module = "tag", id = "x" }')]
    with running(hosts.a, client_side(services)) as a, running(hosts.b, server_side(services)) as b:
        ...
        assert_balanced(a.stats())

The end of the context stops the daemon, and fails when it logged a traceback, did not end with status 0,
or left rules behind.
"""

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .adopted import Adopted, adopting
from .topology import Host

START_S = 30.0
STOP_S = 10.0

_serial = itertools.count()


@dataclass(frozen=True)
class Service:
    """A policy about a server's port, which its client writes as remote_port and the server as local_port.

    chain: the entries, TOML. rest: further lines of the policy. server_chain: where the server's differs.
    """

    name: str
    port: int
    chain: str = ""
    rest: str = ""
    protocol: str = "udp"
    server_chain: str | None = None
    path: str = "queue"

    def text(self, side: str) -> str:
        """The policy, for the "client" or the "server" side."""
        key = "remote_port" if side == "client" else "local_port"
        chain = self.server_chain if side == "server" and self.server_chain is not None else self.chain
        match = f'{{ protocol = "{self.protocol}", {key} = [{self.port}] }}'
        head = f'[policy.{self.name}]\nmatch = {match}\npath = "{self.path}"'
        return f"{head}\nchain = [ {chain} ]\n{self.rest}\n"


def client_side(services: Iterable[Service]) -> str:
    """The policies of the host whose programs connect."""
    return "".join(service.text("client") for service in services)


def server_side(services: Iterable[Service]) -> str:
    """The policies of the host whose programs listen."""
    return "".join(service.text("server") for service in services)


class Daemon:
    """One `layer45 run` with a configuration directory of its own."""

    def __init__(self, host: Host, directory: Path, settings: str) -> None:
        self.host = host
        self.directory = directory
        self.log = directory / "log"
        self.socket = directory / "control.sock"
        self.process: subprocess.Popen[Any] | Adopted | None = None
        self.killed = False
        self.expected: tuple[str, ...] = ()  # events of level error that the test causes
        (directory / "policies").mkdir()
        self.cgroup = f"layer45-test-{os.getpid()}-{next(_serial)}"
        lines = [f'control_socket = "{self.socket}"', f'cgroup_root = "{self.cgroup}"', settings, ""]
        (directory / "layer45.toml").write_text("\n".join(lines))

    def configure(self, policies: str) -> None:
        """What the next start or reload will find."""
        (self.directory / "policies" / "all.toml").write_text(policies)

    def command(self, *words: str) -> list[str]:
        """The command line of one of layer45's commands about this daemon."""
        return [sys.executable, "-m", "layer45", words[0], "--config", str(self.directory), *words[1:]]

    def start(self) -> None:
        """Returns when the daemon says READY, as a service manager would see it."""
        address = self.directory / "notify.sock"
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
            manager.bind(str(address))
            with self.log.open("a") as log:
                environment = {**os.environ, "NOTIFY_SOCKET": str(address)}
                self.process = self.host.popen(self.command("run"), stderr=log, stdout=log, env=environment)
            try:
                self._wait_until_ready(manager)
            finally:
                address.unlink()

    def _wait_until_ready(self, manager: socket.socket) -> None:
        assert self.process is not None
        until = time.monotonic() + START_S
        manager.settimeout(0.1)
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in manager.recv(4096).split(b"\n"):
                    return
            assert self.process.poll() is None, f"the daemon ended:\n{self.log.read_text()}"
        raise AssertionError(f"not ready after {START_S:g} s:\n{self.log.read_text()}")

    def ask(self, *words: str) -> Any:
        """The answer of a command that takes --json."""
        return json.loads(self.host.run([*self.command(*words), "--json"]).stdout)

    def stats(self) -> dict[str, Any]:
        """`layer45 stats`."""
        return dict(self.ask("stats"))

    def engine(self) -> dict[str, int]:
        """The engine's counters."""
        return dict(self.stats()["engine"])

    def policy(self, name: str) -> dict[str, Any]:
        """A policy's counters."""
        return dict(self.stats()["policies"][name])

    def counters(self, name: str, module: str) -> dict[str, int]:
        """The counters of the first instance of a module in a policy's chain."""
        instances = self.policy(name)["instances"]
        return dict(next(each["counters"] for each in instances if each["module"] == module))

    def flows(self) -> list[dict[str, Any]]:
        """`layer45 flows`."""
        return list(self.ask("flows"))

    def reload(self, policies: str | None = None) -> None:
        """`layer45 reload`, with other policies if any are given."""
        if policies is not None:
            self.configure(policies)
        self.host.run(self.command("reload"))

    def restart(self) -> None:
        """`layer45 restart`: the successor is this daemon from then on; the predecessor has ended well."""
        assert self.process is not None
        with adopting():
            done = self.host.run([*self.command("restart"), "--json"])
            told = json.loads(done.stdout)
            assert told["predecessor"] == self.process.pid
            assert self.process.wait(STOP_S) == 0
        self.process = Adopted(told["pid"])

    def kill(self) -> None:
        """kill -9: nothing of the daemon gets to tidy up."""
        assert self.process is not None
        self.killed = True
        self.process.kill()
        self.process.wait(STOP_S)

    def stop(self) -> float:
        """SIGTERM, and how long it took to end; AssertionError when it did not end well."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOP_S)
        assert status == 0, f"the daemon's exit status is {status}:\n{self.log.read_text()}"
        return time.monotonic() - begun

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None and self.process.poll() is None

    def check_log(self) -> None:
        """AssertionError when the daemon ran into something it, or the test, did not expect."""
        text = self.log.read_text()
        assert "Traceback" not in text, text
        errors = [line for line in text.splitlines() if "level=error" in line]
        assert not [line for line in errors if not any(f'event="{each}"' in line for each in self.expected)]


@contextlib.contextmanager
def running(host: Host, policies: str, settings: str = "") -> Iterator[Daemon]:
    """A daemon that is ready. settings: further lines of layer45.toml."""
    directory = Path(tempfile.mkdtemp(prefix="l45-"))
    daemon = Daemon(host, directory, settings)
    try:
        daemon.configure(policies)
        before = ruleset(host)
        daemon.start()
        yield daemon
        if daemon.alive:
            daemon.stop()
            assert ruleset(host) == before
        daemon.check_log()
    finally:
        if daemon.alive:
            daemon.kill()
        if daemon.killed:  # a map of connections would outlive the host
            host.run(daemon.command("rules", "--remove"), check=False)
        remove_cgroup(_cgroup_mount() / daemon.cgroup)
        shutil.rmtree(directory)


def remove_cgroup(path: Path) -> None:
    """Takes away a cgroup tree, with the programs of `layer45 exec` that still run in it."""
    for directory in [*(each for each in path.glob("*") if each.is_dir()), path]:
        if directory.exists():
            for pid in map(int, (directory / "cgroup.procs").read_text().split()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            eventually(lambda: not (directory / "cgroup.procs").read_text())  # noqa: B023  called at once
            directory.rmdir()


def _cgroup_mount() -> Path:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next(Path(words[1]) for words in mounts if words[2] == "cgroup2")


def ruleset(host: Host) -> str:
    """Every netfilter rule of a host, without packet counts, from all the tools that show them."""
    texts = [host.run([tool]).stdout for tool in ("iptables-save", "ip6tables-save")]
    texts.append(host.run(["nft", "--stateless", "list", "ruleset"]).stdout)
    lines = "\n".join(texts).splitlines()
    return "\n".join(line.split(" [")[0] for line in lines if not line.startswith("#"))


FAULTS = (
    "module_errors", "unset_verdicts", "failed_open", "failed_closed", "inject_errors", "verdict_errors",
    "kernel_errors", "kernel_overruns", "malformed", "short", "no_class", "pool_empty",
)  # fmt: skip


def assert_balanced(stats: dict[str, Any], faults: Collection[str] = ()) -> None:
    """Every queued packet has exactly one verdict, or is held; and nothing failed but what the test wants."""
    engine = stats["engine"]
    verdicts = sum(engine[name] for name in ("passed", "rewritten", "dropped", "held"))
    assert engine["received"] == verdicts, engine
    assert engine["clones"] >= engine["clones_ended"], engine
    found = {name: engine[name] for name in FAULTS if engine[name] and name not in faults}
    assert not found, found


def assert_no_checksum_errors(*hosts: Host) -> None:
    """Invariant 3, as the kernels saw it."""
    for host in hosts:
        assert host.checksum_errors() == {"udp4": 0, "udp6": 0, "tcp": 0}


def eventually(true: Callable[[], object], within_s: float = 3.0) -> None:
    """Waits for what becomes true soon, and fails when it does not."""
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, "did not become true"
        time.sleep(0.02)
