"""A daemon's successor, which its predecessor has started: our child as soon as that has ended."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator

PR_SET_CHILD_SUBREAPER = 36
WAIT_S = 0.01

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Children of children that end meanwhile become ours."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


class Adopted:
    """As much of a Popen as tests of daemons need."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, or None."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def wait(self, timeout: float) -> int:
        """Its exit status."""
        until = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(WAIT_S)
        return status

    def send_signal(self, number: int) -> None:
        """Nothing, once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(signal.SIGKILL)
