"""The two hosts of the demo: namespaces joined by a veth pair, a daemon in each; all gone at the end."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

IDENTITY = b"host-7"
CHAIN = f"""[
    {{ module = "scramble", key = "layer 4.5 in action" }},
    {{ module = "tag", id = "{IDENTITY.decode()}" }},
]"""
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
            problem = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
            raise DemoError(f"host {self.letter}: {' '.join(words)}: {problem[-1]}")
        return done.stdout

    def layer45(self, *words: str) -> list[str]:
        """One of our own commands, for this host's daemon."""
        return [sys.executable, "-m", "layer45", words[0], "--config", str(self.config), *words[1:]]

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
                    raise DemoError(f"{error}: {log.read().strip()[-300:]}") from None
                raise
            finally:
                end_of(process, end)


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


def write_config(host: Host, match: str) -> None:
    """Both ends have the same chain; only who is under it is said differently."""
    (host.config / "policies").mkdir(parents=True)
    (host.config / "layer45.toml").write_text(
        f'control_socket = "{host.config}/control.sock"\ncgroup_root = "{host.namespace}"\n'
    )
    (host.config / "policies" / "demo.toml").write_text(
        f'[policy.demo]\nsummary = "Scrambled, and tagged with who sent it"\n{match}chain = {CHAIN}\n'
    )


@contextlib.contextmanager
def daemon(host: Host) -> Iterator[None]:
    """`layer45 run` in a host."""
    with host.running(*host.layer45("run")) as process:
        status = host.command(*host.layer45("status"))

        def ready() -> bool:
            return subprocess.run(status, capture_output=True, check=False).returncode == 0

        wait_until(f"layer45 run in host {host.letter}", ready, process)
        yield
