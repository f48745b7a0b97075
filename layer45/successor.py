"""The daemon that takes over from this one, as this one sees it; handover.py has the whole course."""

import errno
import os
import select
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from layer45.control import Handed
from layer45.errors import Layer45Error
from layer45.notify import notify

if TYPE_CHECKING:
    from layer45.daemon import Daemon


Start = Callable[[Sequence[str], Mapping[str, str]], "subprocess.Popen[bytes]"]


class Successor:
    """None, one that was started, one that has begun to take over, or the one in charge.

    All methods run in the daemon's thread.
    """

    def __init__(self, daemon: "Daemon", start: Start, log: Any) -> None:
        self.in_charge = False
        self._daemon = daemon
        self._start = start
        self._log = log
        self._pid = 0  # of who has begun to take over
        self._process: subprocess.Popen[bytes] | None = None
        self._problems: list[str] = []
        self._owes = False  # rules that have not been taken back

    @property
    def busy(self) -> bool:
        """Whether one has begun: rules and connections may be its already."""
        return self._pid != 0

    def refuse_changes(self) -> None:
        """Raises Layer45Error while one takes over: it would not know of them."""
        if self.busy:
            raise Layer45Error(f"pid {self._pid} is taking over from this daemon; try again")

    def launch(self) -> dict[str, Any]:
        """Starts one, by the command line and in the environment of this process. Raises Layer45Error."""
        if self._process is not None and self._process.poll() is None:
            raise Layer45Error(f"pid {self._process.pid} is about to take over from this daemon; try again")
        self._problems = []
        try:
            self._process = self._start(command(), environment())
        except OSError as error:
            raise Layer45Error(f"a successor cannot be started: {error.strerror}") from None
        self._log.info("a successor is started", successor=self._process.pid)
        return {"pid": self._process.pid, "predecessor": os.getpid()}

    def begin(self, pid: int, listener: int, hung_up: Callable[[], None]) -> Handed:
        """It gets what it needs; nothing changes from here on."""
        self._pid = pid
        self._log.info("a successor takes over", successor=pid)
        return Handed(self._daemon.inheritance(), (self._daemon.lock.descriptor, listener), hung_up)

    def finish(self, pid: int) -> None:
        """It is in charge. Raises Layer45Error where it is not the one that has begun, or lives no more."""
        if pid != self._pid or not _lives(pid):
            raise Layer45Error(f"pid {pid} is not taking over from this daemon")
        self.in_charge = True
        notify(f"MAINPID={self._pid}")
        self._daemon.hand_over()

    def give_back(self, pid: int, problems: list[str]) -> None:
        """It could not take over, so we go on. Once for each that has begun."""
        if pid != self._pid:
            return
        self._problems, self._pid = problems, 0
        self._log.error("the successor did not take over", problems=problems)
        self._owes = True
        self._take_back()

    def _take_back(self) -> None:
        """Until it has worked."""
        try:
            self._daemon.take_back()
            self._owes = False
        except Layer45Error as error:
            self._log.error("the rules cannot be taken back yet", reason=str(error))

    def look(self) -> None:
        """Whether the one that was started has ended without a word; and what could not be taken back."""
        if self._owes:
            self._take_back()
        self._reap()

    def _reap(self) -> None:
        status = self._process.poll() if self._process else None
        if status is not None and not self.in_charge and not self._problems:
            self._problems = [f"the successor ended with status {status}; the log says why"]
            self._log.error("the successor did not take over", problems=self._problems)

    def status(self) -> dict[str, Any] | None:
        """As `layer45 status --json` has it: the last one that was asked for or came, or None."""
        self._reap()
        pid = self._pid or (self._process.pid if self._process else 0)
        return {"pid": pid, "problems": self._problems} if pid or self._problems else None


def _lives(pid: int) -> bool:
    """Whether a process runs; if it cannot be told, it does."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        return error.errno != errno.ESRCH
    try:
        return not select.select([descriptor], [], [], 0)[0]  # readable: it has ended, reaped or not
    finally:
        os.close(descriptor)


def command() -> list[str]:
    """The command line of this process, as that of a successor."""
    words = [sys.executable, *sys.orig_argv[1:]]
    return words if "--replace" in words else [*words, "--replace"]


def environment() -> dict[str, str]:
    """Of a successor: the watchdog's wishes are meant for whoever is the main process."""
    return {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"}
