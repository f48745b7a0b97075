"""The cgroups that `exec` puts programs in: <cgroup v2 mount>/<cgroup_root>/<policy>.

A daemon holds a shared flock on every cgroup directory it uses. Who ends removes those that are empty and
that nobody else holds, so daemons which share a cgroup root leave each other's alone, and a killed daemon's
are not left for ever.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterable
from pathlib import Path

from layer45.errors import Layer45Error
from layer45.rules import cgroups
from layer45.rules.capabilities import raised
from layer45.rules.errors import RulesError
from layer45.rules.mounts import MOUNTS

LOCK_WAIT_S = 1.0
MAKING = ("dac_override",)  # the top of the tree, where ours begins, is not even root's to write: mode 0555


def mount_point(mounts: Path = MOUNTS) -> Path:
    """Where cgroup v2 is mounted. Raises Layer45Error."""
    try:
        return cgroups.mount_point(mounts)
    except RulesError as error:
        raise Layer45Error(str(error)) from None


def path_of(root: str, policy: str) -> str:
    """A policy's cgroup, below the mount."""
    return f"{root.strip('/')}/{policy}"


class Cgroups:
    """The cgroups one daemon uses."""

    def __init__(self, root: str, mount: Path | None = None) -> None:
        self.root = root.strip("/")
        self.mount = mount if mount is not None else mount_point()
        self._held: dict[str, int] = {}  # path below the mount → descriptor with our shared lock
        self._busy: set[str] = set()  # let go of, but programs were still in them

    def prepare(self, policy: str) -> str:
        """Makes and holds a policy's cgroup; its path below the mount. Raises Layer45Error."""
        path = path_of(self.root, policy)
        for part in (self.root, path):
            self._hold(part)
        return path

    def populated(self, policies: Iterable[str]) -> set[str]:
        """Those in whose cgroups programs are: a predecessor's, that was killed or could not remove them."""
        return {each for each in policies if self._has_programs(path_of(self.root, each))}

    def _has_programs(self, path: str) -> bool:
        try:
            return "populated 1" in (self.mount / path / "cgroup.events").read_text()
        except OSError:
            return False

    def keep_only(self, policies: set[str]) -> None:
        """Lets go of the cgroups of all other policies."""
        wanted = {self.root, *(path_of(self.root, policy) for policy in policies)}
        for path in sorted(set(self._held) - wanted, reverse=True):
            self._release(path)

    def close(self) -> None:
        """Lets go of all: removes what is empty and nobody else's. A cgroup with programs in it stays."""
        for path in sorted({*self._held, *self._busy}, reverse=True):  # children before their parent
            self._release(path)

    def _hold(self, path: str) -> None:
        while path not in self._held or not self._is_current(path):
            if path in self._held:
                os.close(self._held.pop(path))
            try:
                self._held[path] = self._open(path)
            except OSError as error:
                reason = "needs root" if error.errno in (errno.EACCES, errno.EPERM) else error.strerror
                raise Layer45Error(f"{self.mount / path}: cannot make the cgroup: {reason}") from None

    def _open(self, path: str) -> int:
        """A descriptor with our shared lock; the directory is made if it is missing.

        Another daemon locks it against us only while it removes it. Any user can lock a directory: one who
        does so for longer must not keep us from starting.
        """
        with raised(*MAKING):
            (self.mount / path).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.mount / path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        until = time.monotonic() + LOCK_WAIT_S
        while time.monotonic() < until:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            time.sleep(LOCK_WAIT_S / 100)
        return descriptor

    def _is_current(self, path: str) -> bool:
        """False when someone removed the directory, and perhaps made another, since we opened it."""
        try:
            return os.path.samestat(os.fstat(self._held[path]), (self.mount / path).stat())
        except FileNotFoundError:
            return False

    def _release(self, path: str) -> None:
        descriptor = self._held.pop(path, -1)
        self._busy.discard(path)
        try:
            if descriptor < 0:
                descriptor = os.open(self.mount / path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with raised(*MAKING):
                (self.mount / path).rmdir()
        except OSError as error:  # held by another daemon, not empty, or gone
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                self._busy.add(path)
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def enter(path: str, mount: Path | None = None) -> None:
    """Moves this process into a cgroup below the mount. Raises Layer45Error."""
    directory = (mount if mount is not None else mount_point()) / path
    try:
        (directory / "cgroup.procs").write_text(f"{os.getpid()}\n")
    except PermissionError:
        raise Layer45Error(
            f"{directory}: only root may move a program into its policy's cgroup; "
            "run as root (and, inside it, sudo -u USER CMD to run CMD as a user)"
        ) from None
    except OSError as error:
        raise Layer45Error(f"{directory}: cannot move into the cgroup: {error.strerror}") from None
