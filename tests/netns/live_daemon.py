"""A daemon in a host of topology.py, with its own configuration, socket and cgroups."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layer45.cgroups import mount_point

from .topology import Host

START_S = 20.0
LAYER45 = (sys.executable, "-m", "layer45")
VOICE = '[policy.voice]\nmatch = { protocol = "udp", remote_port = [5000] }\npath = "queue"\n'


class LiveDaemon:
    """`layer45 run` and the commands that go with it, in one host."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self.socket = directory / "run" / "control.sock"
        self.cgroup_root = f"layer45-test-{os.getpid()}-{host.name[-1]}"
        self.log = directory / "log"
        self.process: subprocess.Popen[Any] | None = None
        self.wrapper: list[str] = []  # a program that runs the daemon, and becomes it
        (directory / "policies").mkdir(parents=True)
        self.settings()

    def settings(self, **more: object) -> None:
        """Writes layer45.toml."""
        values = {"control_socket": str(self.socket), "cgroup_root": self.cgroup_root, **more}
        self.cgroup_root = str(values["cgroup_root"])
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]
        (self.directory / "layer45.toml").write_text("".join(lines))

    def policies(self, text: str) -> None:
        """Writes the one policy file."""
        (self.directory / "policies" / "all.toml").write_text(text)

    def command(self, *words: str) -> list[str]:
        """A layer45 command line with our --config, before any `--`."""
        name, *rest = words
        return [*LAYER45, name, "--config", str(self.directory), *rest]

    def layer45(self, *words: str, status: int = 0, **options: Any) -> str:
        """Runs a command in the host; its standard output, or standard error where it is to fail."""
        done = self.host.run(self.command(*words), check=False, **options)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return str(done.stderr if status else done.stdout)

    def json(self, *words: str) -> Any:
        """The document that a command prints."""
        return json.loads(self.layer45(*words, "--json"))

    def start(self, **environment: str) -> "LiveDaemon":
        """Until it is ready."""
        self.process = self.host.popen(
            [*self.wrapper, *self.command("run")],
            stderr=self.log.open("wb"),
            env={**os.environ, **environment},
        )
        until = time.monotonic() + START_S
        while "event=ready" not in self.log_text():
            assert self.process.poll() is None, self.log_text()
            assert time.monotonic() < until, self.log_text()
            time.sleep(0.02)
        return self

    def log_text(self) -> str:
        """Everything it has logged since its last start."""
        return self.log.read_text() if self.log.exists() else ""

    def end(self, number: int = signal.SIGTERM, seconds: float = 10.0) -> int:
        """Sends a signal and waits. Its exit status."""
        assert self.process is not None
        os.kill(self.process.pid, number)
        status = self.process.wait(seconds)
        self.process = None
        return status

    def rules(self) -> str:
        """All of the host's netfilter rules, whoever made them."""
        commands = (
            "iptables-save 2>/dev/null; ip6tables-save 2>/dev/null; nft --stateless list ruleset 2>/dev/null"
        )
        lines = self.host.run(["sh", "-c", commands]).stdout.splitlines()
        counted = re.compile(r"counter packets \d+ bytes \d+|\[\d+:\d+\]")
        return "\n".join(counted.sub("", line) for line in lines if not line.startswith("#"))

    def cgroups(self) -> list[str]:
        """Cgroups below our root; the root itself is ''."""
        root = mount_point() / self.cgroup_root
        return sorted(str(path.relative_to(root)) for path in root.glob("**/"))

    def clean_up(self) -> None:
        """Whatever is left of it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.host.run(self.command("rules", "--remove"), check=False)  # maps and programs outlive a host
        root = mount_point() / self.cgroup_root
        for path in sorted(root.glob("**/"), reverse=True):
            kill_all_in(path)
        if root.is_dir():
            root.rmdir()


def kill_all_in(cgroup: Path) -> None:
    """Ends the programs of a cgroup, and the cgroup unless it is the topmost."""
    for pid in (cgroup / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    until = time.monotonic() + 5
    while (cgroup / "cgroup.procs").read_text() and time.monotonic() < until:
        time.sleep(0.02)
    with contextlib.suppress(OSError):
        cgroup.rmdir()


@contextlib.contextmanager
def live_daemon(host: Host, directory: Path, policies: str = VOICE) -> Iterator[LiveDaemon]:
    """Not started yet."""
    daemon = LiveDaemon(host, directory)
    daemon.policies(policies)
    try:
        yield daemon
    finally:
        daemon.clean_up()
