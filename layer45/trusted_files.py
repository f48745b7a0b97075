"""Files that nobody but root and we could have written: read through descriptors, and judged by them.

Who can write what a root daemon obeys commands root, and who can write a directory can put another file in
its place. So every level of a path must belong to root or to the user this process is, and must not be
writable for its group or for all; as sshd does with StrictModes. (An access control list that lets others
write shows in the group's bits, acl(5).)

One exception, for directories on the way only: a sticky one such as /tmp may be writable for all, for there
nobody renames or removes what is not his (inode(7)); what is in it must pass by itself.

Each name is opened from the descriptor of the directory that was judged, without following links, so nobody
can put anything else in its place in between (openat(2), O_NOFOLLOW). A link on the way is followed level by
level: its owner must pass, and so must all levels of where it leads.
"""

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

MOST_LINKS = 40  # as the kernel: path_resolution(7)
MOST_BYTES = 16 << 20  # of a file that people write
STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not make us wait
WRITERS = ((stat.S_IWOTH, "everybody"), (stat.S_IWGRP, "its group"))


class Distrusted(Exception):
    """What is wrong with which level of a path; its text is one line with both."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Directory:
    """An open directory that passed, as did all above it. path: where it really is."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @property
    def owner(self) -> int:
        """A user's number."""
        return os.fstat(self._descriptor).st_uid

    def names(self) -> list[str]:
        """What is in it, sorted. Raises OSError."""
        return sorted(os.listdir(self._descriptor))  # noqa: PTH208 (of a descriptor)

    def is_directory(self, name: str) -> bool:
        """Whether an entry is one itself, and no link to one. Raises OSError."""
        return stat.S_ISDIR(self._status(name).st_mode)

    @contextmanager
    def inside(self, name: str) -> Iterator["Directory"]:
        """A directory in it, and no link to one. Raises Distrusted and OSError."""
        path = self.path / name
        with _opened(path, name, READ, self._descriptor) as descriptor:
            status = os.fstat(descriptor)
            if not stat.S_ISDIR(status.st_mode):
                raise _os_error(errno.ENOTDIR, path)
            _judge(path, status)
            yield Directory(path, descriptor)

    def read(self, name: str, most_bytes: int = MOST_BYTES) -> bytes:
        """All of a regular file in it, and no link to one. Raises Distrusted and OSError."""
        path = self.path / name
        with _opened(path, name, READ, self._descriptor) as descriptor:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise _os_error(errno.EISDIR, path)
            if not stat.S_ISREG(status.st_mode):
                raise Distrusted(path, "is no regular file")
            _judge(path, status)
            return _contents(path, descriptor, most_bytes)

    def read_followed(self, name: str) -> bytes:
        """As read, but a link is followed if all of the way to its target passes."""
        if not stat.S_ISLNK(self._status(name).st_mode):
            return self.read(name)
        target = real_path(self.path / name)
        with open_directory(target.parent) as parent:
            return parent.read(target.name)

    def _status(self, name: str) -> os.stat_result:
        return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)


@contextmanager
def open_directory(path: Path) -> Iterator[Directory]:
    """A directory that passes, as must all above it. Raises Distrusted and OSError."""
    with ExitStack() as levels:
        real, descriptor = _walk(path, levels)
        with _opened(real, ".", os.O_DIRECTORY | READ, descriptor) as listing:
            yield Directory(real, listing)


def real_path(path: Path) -> Path:
    """Where a path leads, if every level passes. Raises Distrusted and OSError."""
    with ExitStack() as levels:
        return _walk(path, levels)[0]


def _walk(path: Path, levels: ExitStack) -> tuple[Path, int]:
    """Where a path leads, and a descriptor of that, which lives as long as levels."""
    way = [(Path("/"), levels.enter_context(_opened(Path("/"), "/", STEP)))]
    todo = [*reversed(path.absolute().parts[1:])]
    links = 0
    while todo:
        at, directory = way[-1]
        _judge(at, os.fstat(directory), on_the_way=True)
        name = todo.pop()
        if name == "..":
            del way[max(1, len(way) - 1) :]
            continue
        entry = levels.enter_context(_opened(at / name, name, STEP, directory))
        status = os.fstat(entry)
        if not stat.S_ISLNK(status.st_mode):
            way.append((at / name, entry))
            continue
        _judge_owner(at / name, status)
        links += 1
        if links > MOST_LINKS:
            raise _os_error(errno.ELOOP, path)
        target = os.readlink("", dir_fd=entry)
        del way[1 if target.startswith("/") else len(way) :]
        todo += [step for step in reversed(target.split("/")) if step not in ("", ".")]
    at, final = way[-1]
    _judge(at, os.fstat(final))
    return at, final


@contextmanager
def _opened(path: Path, name: str, flags: int, directory: int | None = None) -> Iterator[int]:
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Distrusted(path, "is a symbolic link; expected what it leads to") from None
        raise _os_error(error.errno or errno.EIO, path) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _os_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def _judge(path: Path, status: os.stat_result, on_the_way: bool = False) -> None:
    _judge_owner(path, status)
    if on_the_way and status.st_mode & stat.S_ISVTX:
        return
    for bit, who in WRITERS:
        if status.st_mode & bit:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            mend = f"expected by its owner only; run: chmod go-w {path}"
            raise Distrusted(path, f"can be written by {who} (mode {mode}); {mend}")


def _judge_owner(path: Path, status: os.stat_result) -> None:
    ourselves = os.geteuid()
    if status.st_uid not in (0, ourselves):
        expected = f"root or {_user(ourselves)}" if ourselves else "root"
        raise Distrusted(path, f"belongs to {_user(status.st_uid)}; expected {expected}")


def _user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _contents(path: Path, descriptor: int, most_bytes: int) -> bytes:
    parts, room = [], most_bytes + 1
    while room and (part := os.read(descriptor, room)):
        parts.append(part)
        room -= len(part)
    if not room:
        raise Distrusted(path, f"is longer than {most_bytes} bytes")
    return b"".join(parts)
