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
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import msgspec

from layer45.control_messages import LONGEST_REQUEST_BYTES, Reply, Request, decode_request, encode
from layer45.errors import ConfigError, Layer45Error
from layer45.peer import CONTROL_GROUP, control_gid, peer_of

Answer = Callable[[Request], object]

MOST_CLIENTS = 32
REQUEST_TIME_OUT_S = 10.0  # for a whole request line to arrive, and for a reply to be taken
BACKLOG = 64


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

    async def open(self) -> None:
        """Starts to listen. Raises Layer45Error."""
        listener = bind_socket(self.path)
        self._server = await asyncio.start_unix_server(self._meet, sock=listener, limit=LONGEST_REQUEST_BYTES)

    async def close(self) -> None:
        """Stops listening, hangs up on every client, removes the socket."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # drain returns when the client has taken it all
        try:
            refusal = self._refusal(writer)
            if refusal:
                await self._send(writer, encode(Reply(ok=False, problems=[refusal])))
            while not refusal and await self._converse(reader, writer):
                pass
        except (TimeoutError, ConnectionError):
            pass
        except OSError as error:
            self._log.warning("control client failed", error=str(error))
        finally:
            writer.transport.abort()

    def _refusal(self, writer: asyncio.StreamWriter) -> str:
        peer = peer_of(writer.get_extra_info("socket"))
        if not peer.permitted:
            self._log.warning("control client refused", pid=peer.pid, uid=peer.uid)
            return f"{self.path}: uid {peer.uid} may not command it: be root, or in group {CONTROL_GROUP}"
        if len(self._clients) > MOST_CLIENTS:
            return f"{self.path}: busy with {MOST_CLIENTS} other clients; try again"
        return ""

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its reply. False: nothing more will come."""
        try:
            line = await asyncio.wait_for(reader.readline(), self.time_out_s)
        except ValueError:
            longest = f"a request of more than {LONGEST_REQUEST_BYTES} bytes"
            await self._send(writer, encode(Reply(ok=False, problems=[longest])))
            return False
        if not line.endswith(b"\n"):
            return False
        loop = asyncio.get_running_loop()
        await self._send(writer, await loop.run_in_executor(self._executor, self._reply_to, line))
        return True

    async def _send(self, writer: asyncio.StreamWriter, reply: bytes) -> None:
        writer.write(reply)
        await asyncio.wait_for(writer.drain(), self.time_out_s)

    def _reply_to(self, line: bytes) -> bytes:
        """Runs in the executor. Whatever a request brings, the reply is one line."""
        try:
            return encode(Reply(ok=True, result=self._answer(decode_request(line))))
        except msgspec.DecodeError as error:
            return encode(Reply(ok=False, problems=[f"not a request: {error}"]))
        except Layer45Error as error:
            return encode(Reply(ok=False, problems=problems_of(error)))
        except BaseException:  # SystemExit, too: what a request runs into does not end the daemon
            self._log.exception("request failed")
            return encode(Reply(ok=False, problems=["the daemon could not answer; its log says why"]))


async def hang_up(server: ControlServer) -> None:
    """Closes a server, whatever happens to it on the way."""
    with contextlib.suppress(OSError):
        await server.close()
