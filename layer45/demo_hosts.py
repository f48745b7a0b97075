"""The two hosts of the demo: namespaces joined by a veth pair, a daemon in each; all gone at the end.

Each scene has its own pair. Both hosts have one policy, `demo`, with the same chain; host a's is for programs
that are started under it, host b's for what comes to one port.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layer45 import control_messages
from layer45.control_client import ask
from layer45.errors import Layer45Error

ADDRESSES = {"a": "10.77.45.1", "b": "10.77.45.2"}
START_TIMEOUT_S = 20.0


class DemoError(Exception):
    """Something is not as it should be; one line."""


@dataclass
class Host:
    """One namespace with a daemon's configuration."""

    letter: str
    config: Path

    @property
    def namespace(self) -> str:
        return f"l45-demo-{os.getpid()}-{self.letter}"

    def command(self, *words: str) -> list[str]:
        """A command line that runs in this host; /sys, and so the cgroups, stay in sight."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}", "--", *words]

    def run(self, *words: str, timeout_s: float = 60) -> str:
        """Its output. Raises DemoError."""
        done = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            timeout=timeout_s,
        )
        if done.returncode:
            problem = last_line(done.stderr or done.stdout)
            raise DemoError(f"host {self.letter}: {' '.join(words)}: {problem}")
        return done.stdout

    def layer45(self, *words: str) -> list[str]:
        """One of our own commands, for this host's daemon."""
        return [sys.executable, "-m", "layer45", words[0], "--config", str(self.config), *words[1:]]

    def ask(self, request: control_messages.Request) -> Any:
        """What this host's daemon answers. Raises Layer45Error."""
        return ask(self.config / "control.sock", request, self.config)

    @contextlib.contextmanager
    def running(self, *words: str, end: int = signal.SIGTERM) -> Iterator[subprocess.Popen[str]]:
        """A program in this host for the length of the context."""
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
            try:
                yield process
            except DemoError as error:
                if process.poll():
                    log.seek(0)
                    raise DemoError(f"{error}: {last_line(log.read())}") from None
                raise
            finally:
                end_of(process, end)


def last_line(text: str) -> str:
    """What a program complained about, in one line."""
    return (text.strip() or "no output").splitlines()[-1]


def end_of(process: subprocess.Popen[str], how: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(how)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(what: str, ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Polls ready() while process lives. Raises DemoError."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise DemoError(f"{what} did not start")
        time.sleep(0.05)


def ip(*words: str) -> None:
    """iproute2. Raises DemoError."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoError(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Two namespaces joined by a veth pair."""
    a, b = (Host(letter, folder / letter) for letter in "ab")
    try:
        for host in (a, b):
            ip("netns", "add", host.namespace)
        ends = "type", "veth", "peer", "name", "eth0", "netns", b.namespace
        ip("-n", a.namespace, "link", "add", "eth0", *ends)
        for host in (a, b):
            ip("-n", host.namespace, "link", "set", "lo", "up")
            ip("-n", host.namespace, "address", "add", f"{ADDRESSES[host.letter]}/24", "dev", "eth0")
            ip("-n", host.namespace, "link", "set", "eth0", "up")
        yield a, b
    finally:
        for host in (a, b):
            subprocess.run(["ip", "netns", "delete", host.namespace], capture_output=True, check=False)


def write_config(host: Host, summary: str, chain: str, match: str = "") -> None:
    """The policy `demo`; without a match it is for programs under `layer45 exec`."""
    (host.config / "policies").mkdir(parents=True)
    (host.config / "layer45.toml").write_text(
        f'control_socket = "{host.config}/control.sock"\ncgroup_root = "{host.namespace}"\n'
    )
    (host.config / "policies" / "demo.toml").write_text(
        f'[policy.demo]\nsummary = "{summary}"\n{match}\nchain = {chain}\n'
    )


@contextlib.contextmanager
def daemon(host: Host) -> Iterator[None]:
    """`layer45 run` in a host."""
    with host.running(*host.layer45("run")) as process:
        wait_until(f"layer45 run in host {host.letter}", lambda: _answers(host), process)
        yield


def _answers(host: Host) -> bool:
    with contextlib.suppress(Layer45Error):
        host.ask(control_messages.Status())
        return True
    return False


@contextlib.contextmanager
def under_policy(summary: str, chain: str, port: int) -> Iterator[tuple[Host, Host, Path]]:
    """Two hosts with a daemon each, and a folder. Host b's policy is for UDP to the port."""
    with tempfile.TemporaryDirectory(prefix="layer45-demo-") as name, contextlib.ExitStack() as stack:
        a, b = stack.enter_context(two_hosts(Path(name)))
        write_config(a, summary, chain)
        write_config(b, summary, chain, f'match = {{ protocol = "udp", local_port = {port} }}')
        for host in (a, b):
            stack.enter_context(daemon(host))
        yield a, b, Path(name)


@dataclass(frozen=True)
class Stats:
    """What `layer45 stats` of a host says."""

    content: dict[str, Any]

    def engine(self, counter: str) -> int:
        return int(self.content["engine"][counter])

    def module(self, name: str) -> dict[str, int]:
        """The counters of the demo's instance of a module."""
        instances = self.content["policies"]["demo"]["instances"]
        return next(each["counters"] for each in instances if each["module"] == name)

    @property
    def answered(self) -> int:
        """Packets that got a verdict, or wait for one."""
        return sum(map(self.engine, ("passed", "rewritten", "dropped", "held")))

    def __str__(self) -> str:
        names = "received", "rewritten", "passed", "dropped", "held"
        return ", ".join(f"{name} {self.engine(name)}" for name in names)


def stats(host: Host) -> Stats:
    return Stats(host.ask(control_messages.Stats()))


def refused(host: Host, why: str) -> int:
    """What the protocols of a host refused, by a counter's name in /proc/net/snmp."""
    rows = [line.split() for line in host.run("cat", "/proc/net/snmp").splitlines()]
    pairs = zip(rows[::2], rows[1::2], strict=True)
    return sum(int(values[names.index(why)]) for names, values in pairs if why in names)


def checksum_errors(host: Host) -> int:
    return refused(host, "InCsumErrors")


def full_sockets(host: Host) -> int:
    """UDP datagrams that found a socket's buffer full: its program was without a processor for too long."""
    return refused(host, "RcvbufErrors")


def agree(facts: Iterable[tuple[str, int, int]]) -> None:
    """Raises DemoError for the first of (what, found, wanted) where the two differ."""
    for what, found, wanted in facts:
        if found != wanted:
            raise DemoError(f"{what}: {found}, expected {wanted}")


def within(what: str, found: float, least: float, most: float) -> None:
    """Raises DemoError unless found is from least to most."""
    if not least <= found <= most:
        raise DemoError(f"{what}: {found:.6g}, expected {least:.6g} to {most:.6g}")
