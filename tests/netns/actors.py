"""Programs that do what the test says, one line of Python after the other, under a name of their own.

with Actor(hosts.a, interpreter(tmp_path, "phone")) as phone:
    phone.do("end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    with Sink(hosts.b) as sink:
        phone.do(f"end.sendto(b'hello', {sink.address})")
        assert sink.hear() == b"hello"
"""

import contextlib
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from .topology import Host

# Each line is the repr of what to run; "done" answers it.
LISTEN = """
import ctypes, os, signal, socket, sys, threading, time
print("done", flush=True)
for line in sys.stdin:
    exec(eval(line))
    print("done", flush=True)
"""


def interpreter(directory: Path, name: str) -> Path:
    """A copy of Python that is a program of its own."""
    made = directory / name
    return made if made.exists() else Path(shutil.copy(Path(sys.executable).resolve(), made))


class Actor:
    """A program of a host. before: the command line in front of its executable."""

    def __init__(
        self,
        host: Host,
        executable: Path,
        before: Sequence[str] = (),
        fds: Sequence[int] = (),
        **options: Any,
    ) -> None:
        argv = [*before, str(executable), "-c", LISTEN]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = host.popen(argv, pass_fds=fds, **pipes, **options)
        self._done()

    @property
    def pid(self) -> int:
        """nsenter's, which it has taken the place of; of no use with a command line before it."""
        return self.process.pid

    def do(self, code: str) -> str:
        """Runs it; what it prints."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{code!r}\n")
        self.process.stdin.flush()
        return self._done()

    def _done(self) -> str:
        assert self.process.stdout is not None
        said = []
        while (line := self.process.stdout.readline()) not in ("done\n", ""):
            said.append(line)
        assert line, f"it has ended: {self.process.args!r}"
        return "".join(said).strip()

    def end(self) -> None:
        """Also when it has ended."""
        self.process.kill()
        self.process.wait(5)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> "Actor":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Sink:
    """Where datagrams to a port of a host end; IPv4."""

    def __init__(self, host: Host, port: int = 7001) -> None:
        self.address = host.ipv4, port
        self._end = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._end.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self._end.bind(self.address)

    def hear(self, wait_s: float = 3.0) -> bytes:
        """The next one."""
        self._end.settimeout(wait_s)
        return self._end.recv(2000)

    def __enter__(self) -> "Sink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.close()
