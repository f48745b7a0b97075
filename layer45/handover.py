"""One daemon takes over from another one of the same configuration, while packets flow.

    successor                                     predecessor
    connects: TakeOver                       ──▶  changes nothing any more, until this client is gone
                                             ◀──  Inheritance, the lock and the listening socket
    plan, queues of its own, then the rules
    lead there in one step; sockets' tags
    TakenOver                                ──▶  takes no more clients; tells the service manager whose
                                             ◀──  service it is now
    hangs up, and listens                         empties its queues, closes them, ends

If the successor goes before TakenOver, the predecessor installs its own rules once more, and goes on. If the
predecessor goes, the successor is in charge. The engine's flows are not handed over.
"""

import contextlib
import os
import socket
from pathlib import Path

import msgspec

from layer45.config import Settings
from layer45.control_client import READ_BYTES
from layer45.control_messages import GivenBack, Reply, Request, TakenOver, TakeOver, decode_reply, encode
from layer45.errors import ConfigError, Layer45Error
from layer45.inheritance import Inheritance, valid_for
from layer45.lock import DaemonLock

TIME_OUT_S = 30.0
DESCRIPTORS = 2


class Predecessor:
    """The daemon that runs, for the one that takes over from it. A context: at its end it is let alone."""

    def __init__(self, path: Path, connection: socket.socket) -> None:
        self.path = path
        self.dismissed = False
        self._pid = os.getpid()
        self._told = False
        self._connection = connection
        self._left: Inheritance
        self.lock: DaemonLock
        self.listener: socket.socket

    def __enter__(self) -> "Predecessor":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.give_back(str(error))
        self._connection.close()

    def begin(self) -> None:
        """Asks for all it has to give. Raises Layer45Error, also where it does not want to."""
        try:
            self._begin()
        except OSError as error:
            raise Layer45Error(
                f"{self.path}: the daemon does not answer: {error.strerror or error}"
            ) from None

    def _begin(self) -> None:
        self._send(TakeOver(self._pid))
        first, descriptors, _, _ = socket.recv_fds(
            self._connection, READ_BYTES, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        self._left = _inheritance(self._reply(first))
        if len(descriptors) != DESCRIPTORS:
            raise Layer45Error(f"{self.path}: the daemon does not hand over its lock and its socket")
        self.lock = InheritedLock(self.path, descriptors[0], self)
        self.listener = socket.socket(fileno=descriptors[1])

    def inheritance(self, settings: Settings) -> Inheritance:
        """What it leaves. Raises Layer45Error where that has no meaning for these settings, and here."""
        if self._left.valid != valid_for(settings.mark_mask):
            raise Layer45Error(
                f"{self.path}: its daemon has another mark_mask, or runs in another network namespace; "
                "stop it and start anew to change that"
            )
        return self._left

    def dismiss(self) -> None:
        """We are in charge from here on, whether it hears of it or is gone."""
        self.dismissed = True
        with contextlib.suppress(OSError, Layer45Error):
            self._ask(TakenOver(self._pid))

    def give_back(self, reason: str) -> None:
        """It goes on as before, unless it was dismissed or told so."""
        if self.dismissed or self._told:
            return
        self._told = True
        with contextlib.suppress(OSError, Layer45Error):
            self._ask(GivenBack(self._pid, reason.splitlines()))

    def _ask(self, request: Request) -> Reply:
        self._send(request)
        return self._reply(self._connection.recv(READ_BYTES))

    def _send(self, request: Request) -> None:
        self._connection.sendall(encode(request))

    def _reply(self, part: bytes) -> Reply:
        parts = [part]
        while part and not part.endswith(b"\n"):
            parts.append(part := self._connection.recv(READ_BYTES))
        if not part:
            raise Layer45Error(f"{self.path}: the daemon hung up")
        try:
            return decode_reply(b"".join(parts))
        except msgspec.DecodeError as error:
            raise Layer45Error(f"{self.path}: the daemon's answer is not one of ours: {error}") from None


def find_predecessor(path: Path) -> Predecessor | None:
    """The daemon that listens at a control socket, asked for nothing yet; None: there is none.

    Raises Layer45Error where one cannot tell.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(TIME_OUT_S)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return None
        raise Layer45Error(f"{path}: {error.strerror or error}") from None
    return Predecessor(path, connection)


def _inheritance(reply: Reply) -> Inheritance:
    if not reply.ok:
        raise ConfigError(reply.problems)
    try:
        return msgspec.convert(reply.result, Inheritance)
    except msgspec.ValidationError as error:
        raise Layer45Error(f"the daemon's inheritance is not one of ours: {error}") from None


class InheritedLock(DaemonLock):
    """A predecessor's lock, which is ours too, and only ours once that is dismissed."""

    def __init__(self, control_socket: Path, descriptor: int, predecessor: Predecessor) -> None:
        super().__init__(control_socket)
        self.descriptor = descriptor
        self._predecessor = predecessor

    def __enter__(self) -> "InheritedLock":
        return self

    def __exit__(self, *error: object) -> None:
        if self._predecessor.dismissed:
            super().__exit__(*error)
        else:
            self.leave()
