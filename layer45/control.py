"""The control socket, the daemon's side: who may speak, how long, how much, and in which order things are
done.

One task a client, all in the daemon's event loop; the work itself runs in one thread beside it, a request at
a time, so neither a slow client nor a slow reload keeps the loop from its signals and its watchdog.
"""

import asyncio
import contextlib
import os
import socket
import stat
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from layer45.control_messages import LONGEST_REQUEST_BYTES, ROOTS, Reply, Request, decode_request, encode
from layer45.errors import ConfigError, Layer45Error
from layer45.peer import CONTROL_GROUP, control_gid, peer_of

Answer = Callable[[Request], object]

MOST_CLIENTS = 32
REQUEST_TIME_OUT_S = 10.0  # for a whole request line to arrive, and for a reply to be taken
BACKLOG = 64


@dataclass(frozen=True)
class Handed:
    """A result that comes with descriptors, which stay ours.

    Its client may take as long as it likes for what it asks next. ended: called in the executor when the
    client has hung up.
    """

    result: object
    descriptors: tuple[int, ...]
    ended: Callable[[], None]


def problems_of(error: Layer45Error) -> list[str]:
    """An error's lines."""
    return error.problems if isinstance(error, ConfigError) else [str(error)]


def bind_socket(path: Path) -> socket.socket:
    """A listening socket at path, 0660 root:layer45 (root:root where that group is missing).

    The caller holds the daemon's lock, so a socket that is there already belongs to a dead daemon and is
    replaced. Raises Layer45Error.
    """
    try:
        if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
            raise Layer45Error(f"{path}: is there already, and is not a socket")
        path.unlink(missing_ok=True)
        return _listen(path)
    except OSError as error:
        raise Layer45Error(f"{path}: cannot open the control socket: {error.strerror or error}") from None


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)  # no moment in which others could connect
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
        os.chown(path, -1, gid if (gid := control_gid()) is not None else -1)
        path.chmod(0o660)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


class ControlServer:
    """Serves requests until closed. answer runs in the executor; it may raise Layer45Error."""

    def __init__(self, path: Path, answer: Answer, executor: Executor, log: Any) -> None:
        self.path = path
        self.time_out_s = REQUEST_TIME_OUT_S
        self._answer = answer
        self._executor = executor
        self._log = log
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.AbstractServer | None = None
        self._listener: socket.socket
        self._is_ours = True

    async def open(self, listener: socket.socket | None = None) -> None:
        """Starts to listen, with the socket that a predecessor has handed over. Raises Layer45Error."""
        self._listener = listener or bind_socket(self.path)
        keep: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._server = await asyncio.start_unix_server(
            self._meet, sock=self._listener, limit=LONGEST_REQUEST_BYTES, **keep
        )

    @property
    def listener(self) -> int:
        """The descriptor of the listening socket, which stays ours."""
        return self._listener.fileno()

    def leave(self) -> None:
        """Takes no more clients: another process listens here now, and the socket's name is its."""
        self._is_ours = False
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Stops listening, hangs up on every client, removes the socket if it is ours."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        if self._is_ours:
            self.path.unlink(missing_ok=True)

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # drain returns when the client has taken it all
        talk = Talk(reader, writer, self.time_out_s)
        try:
            refusal = self._refusal(talk)
            if refusal:
                await self._send(talk, encode(Reply(ok=False, problems=[refusal])))
            while not refusal and await self._converse(talk):
                pass
        except (TimeoutError, ConnectionError):
            pass
        except OSError as error:
            self._log.warning("control client failed", error=str(error))
        finally:
            writer.transport.abort()
            if talk.handed:
                self._executor.submit(talk.handed.ended)

    def _refusal(self, talk: "Talk") -> str:
        peer = peer_of(talk.writer.get_extra_info("socket"))
        talk.is_root = peer.uid == 0
        if not peer.permitted:
            self._log.warning("control client refused", pid=peer.pid, uid=peer.uid)
            return f"{self.path}: uid {peer.uid} may not command it: be root, or in group {CONTROL_GROUP}"
        if len(self._clients) > MOST_CLIENTS:
            return f"{self.path}: busy with {MOST_CLIENTS} other clients; try again"
        return ""

    async def _converse(self, talk: "Talk") -> bool:
        """One request and its reply. False: nothing more will come."""
        try:
            line = await asyncio.wait_for(talk.reader.readline(), talk.patience_s)
        except ValueError:
            longest = f"a request of more than {LONGEST_REQUEST_BYTES} bytes"
            await self._send(talk, encode(Reply(ok=False, problems=[longest])))
            return False
        if not line.endswith(b"\n"):
            return False
        loop = asyncio.get_running_loop()
        await self._send(talk, await loop.run_in_executor(self._executor, self._reply_to, line, talk))
        return True

    async def _send(self, talk: "Talk", reply: bytes) -> None:
        talk.hand_over()
        talk.writer.write(reply)
        await asyncio.wait_for(talk.writer.drain(), self.time_out_s)

    def _reply_to(self, line: bytes, talk: "Talk") -> bytes:
        """Runs in the executor. Whatever a request brings, the reply is one line."""
        try:
            request = decode_request(line)
            if isinstance(request, ROOTS) and not talk.is_root:
                raise Layer45Error(f"{self.path}: only root may take over")
            result = self._answer(request)
            if isinstance(result, Handed):
                talk.handed, talk.patience_s, result = result, None, result.result
            return encode(Reply(ok=True, result=result))
        except msgspec.DecodeError as error:
            return encode(Reply(ok=False, problems=[f"not a request: {error}"]))
        except Layer45Error as error:
            return encode(Reply(ok=False, problems=problems_of(error)))
        except BaseException:  # SystemExit, too: what a request runs into does not end the daemon
            self._log.exception("request failed")
            return encode(Reply(ok=False, problems=["the daemon could not answer; its log says why"]))


@dataclass
class Talk:
    """A client and what it was handed. patience_s: how long we wait for its next request; None: for ever."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    patience_s: float | None
    is_root: bool = False
    handed: Handed | None = None
    sent: bool = False

    def hand_over(self) -> None:
        """Sends descriptors that were not sent yet, with a byte in front of the reply's line: a space."""
        if self.handed is None or self.sent:
            return
        self.sent = True
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as connection:
            socket.send_fds(connection, [b" "], self.handed.descriptors)


async def hang_up(server: ControlServer) -> None:
    """Closes a server, whatever happens to it on the way."""
    with contextlib.suppress(OSError):
        await server.close()
