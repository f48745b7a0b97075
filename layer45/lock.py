"""One daemon per control socket: a lock file beside it, held for the daemon's life and gone with it."""

import fcntl
import os
from pathlib import Path

from layer45.errors import Layer45Error

PID_BYTES = 32


def lock_path(control_socket: Path) -> Path:
    """The lock file that belongs to a control socket."""
    return control_socket.with_name(control_socket.name + ".lock")


class DaemonLock:
    """An flock: the kernel frees it when its holder dies, however that happens.

    The file is root's alone to open: whoever can open a file can lock it.
    """

    def __init__(self, control_socket: Path) -> None:
        self.control_socket = control_socket
        self.path = lock_path(control_socket)
        self.descriptor = -1

    def __enter__(self) -> "DaemonLock":
        self._make_directory()
        while not self._hold():
            pass
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """Lets go of what somebody else holds too."""
        os.close(self.descriptor)

    def name_holder(self) -> None:
        """Tells others that this process has it."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{os.getpid()}\n".encode(), 0)

    def _make_directory(self) -> None:
        """One that is made here is open to all, whatever the umask: members of the control group pass it."""
        try:
            if not self.path.parent.is_dir():
                self.path.parent.mkdir(parents=True)
                self.path.parent.chmod(0o755)
        except OSError as error:
            raise Layer45Error(f"{self.path.parent}: cannot make it: {error.strerror}") from None

    def _hold(self) -> bool:
        """False: the file we locked was removed meanwhile by a daemon that ended. Try again."""
        try:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Layer45Error(f"{self.path}: cannot open the lock: {error.strerror}") from None
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self.descriptor, PID_BYTES, 0).decode(errors="replace").strip() or "unknown"
            os.close(self.descriptor)
            raise Layer45Error(
                f"{self.control_socket}: a daemon is already running here, pid {holder}"
            ) from None
        if not self._still_named():
            os.close(self.descriptor)
            return False
        self.name_holder()
        return True

    def _still_named(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self.descriptor), self.path.stat())
        except FileNotFoundError:
            return False
