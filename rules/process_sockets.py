"""The TCP and UDP sockets of a running process, borrowed to set our field of their marks.

    pidfd_open: this process and no later one of its number → /proc/PID/fd: which descriptors are sockets
    → pidfd_getfd: the same socket, as a descriptor of ours → SO_MARK within our mask

A socket belongs to whoever has a descriptor of it: processes that share one see the same mark.
"""

import contextlib
import ctypes
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from layer45.rules import processes
from layer45.rules.capabilities import raised
from layer45.rules.diversion import MarkLayout
from layer45.rules.errors import RulesError

PIDFD_GETFD = 438  # of every machine
SO_NETNS_COOKIE = 71
FAMILIES = (socket.AF_INET, socket.AF_INET6)
KINDS = ((socket.SOCK_STREAM, socket.IPPROTO_TCP), (socket.SOCK_DGRAM, socket.IPPROTO_UDP))
TCP_CLOSE, TCP_LISTEN = 7, 10  # the states of a TCP socket that has no connection

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Borrowed:
    """here: in this network namespace. elsewhere: how many are in others."""

    here: list[socket.socket] = field(default_factory=list)
    elsewhere: int = 0

    @property
    def connections(self) -> int:
        """How many of them are TCP connections."""
        return sum(map(is_connection, self.here))


class Process:
    """A process by its descriptor, so that its number is never another's. Raises RulesError."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            raise RulesError(f"there is no process {pid}") from None
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # of a thread, as the kernel's version has it
                raise RulesError(f"process {pid}: {error.strerror}") from None
            processes.owner(pid)  # says what is wrong with the number
            raise RulesError(f"{pid} is not the number of a process") from None

    def close(self) -> None:
        """Lets go of the process."""
        os.close(self._descriptor)

    def owner(self) -> processes.Owner:
        """What it is now. Raises RulesError."""
        found = processes.owner(self.pid)
        self._require()
        return found

    def _require(self) -> None:
        """What was read before this was of the process, and not of a later one."""
        ended = select.poll()
        ended.register(self._descriptor, select.POLLIN)
        if ended.poll(0):
            raise RulesError(f"process {self.pid} has ended")

    @contextlib.contextmanager
    def sockets(self) -> Iterator[Borrowed]:
        """Its IPv4 and IPv6 TCP and UDP sockets, each once. Raises RulesError."""
        cookie = own_cookie()
        with contextlib.ExitStack() as held:
            found: dict[int, socket.socket] = {}
            for number, _ in processes.sockets(self.pid):
                copy = self._borrow(number)
                if copy is None:
                    continue
                held.enter_context(copy)
                if is_ours(copy):
                    found.setdefault(inode(copy), copy)
            self._require()
            here = [each for each in found.values() if netns_cookie(each) == cookie]
            yield Borrowed(here, len(found) - len(here))

    @raised("sys_ptrace")
    def _borrow(self, number: int) -> socket.socket | None:
        """A descriptor of ours for one of its; None if it is closed meanwhile, or is no socket any more."""
        descriptor = _libc.syscall(PIDFD_GETFD, self._descriptor, number, 0)
        if descriptor >= 0:
            try:
                return socket.socket(fileno=descriptor)
            except OSError:
                os.close(descriptor)
                return None
        reason = ctypes.get_errno()
        if reason == errno.EBADF:
            return None
        if reason == errno.ESRCH:
            raise RulesError(f"process {self.pid} has ended")
        raise RulesError(f"process {self.pid}: its sockets cannot be reached: {os.strerror(reason)}")


def is_ours(each: socket.socket) -> bool:
    """Whether it is a TCP or UDP socket over IP."""
    return each.family in FAMILIES and (each.type, each.proto) in KINDS


def inode(each: socket.socket) -> int:
    """What tells a socket from all others, whoever has a descriptor of it."""
    return os.fstat(each.fileno()).st_ino


def is_connection(each: socket.socket) -> bool:
    """Whether TCP has begun one."""
    if each.proto != socket.IPPROTO_TCP:
        return False
    return each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in (TCP_CLOSE, TCP_LISTEN)


def netns_cookie(each: socket.socket) -> int:
    """The number of the network namespace that a socket is in."""
    return int(struct.unpack("=Q", each.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))[0])


def own_cookie() -> int:
    """The number of this thread's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return netns_cookie(probe)


def tag_sockets(sockets: list[socket.socket], marks: MarkLayout, tag: int) -> None:
    """Puts the tag into our field of their marks: of all, or on RulesError of none. Other bits stay."""
    with contextlib.ExitStack() as undo:
        for each in sockets:
            try:
                before = _mark(each)
                _set_mark(each, before & ~marks.class_mask | marks.spread(tag))
            except OSError as error:
                raise RulesError(f"a socket's mark cannot be set: {error.strerror}") from None
            undo.callback(_set_mark, each, before)
        undo.pop_all()


def _mark(each: socket.socket) -> int:
    return each.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF


def _set_mark(each: socket.socket, mark: int) -> None:
    each.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
