"""The control socket, the client's side: one question, one answer, every failure one clear line."""

import contextlib
import socket
from pathlib import Path
from typing import Any

import msgspec

from layer45.control_messages import Request, decode_reply, encode
from layer45.errors import ConfigError, Layer45Error

TIME_OUT_S = 30.0
READ_BYTES = 256 * 1024


def ask(path: Path, request: Request, configuration: Path, time_out_s: float = TIME_OUT_S) -> Any:
    """The daemon's result.

    configuration names the directory in the advice when no daemon runs.
    Raises Layer45Error: no daemon, no permission, no answer in time, or what the daemon says is wrong.
    """
    try:
        line = _exchange(path, encode(request), time_out_s)
        reply = decode_reply(line)
    except (FileNotFoundError, ConnectionRefusedError):
        raise Layer45Error(
            f"{path}: no daemon is running here; start it: layer45 run --config {configuration}"
        ) from None
    except PermissionError:
        raise Layer45Error(f"{path}: permission denied: be root, or in group layer45") from None
    except TimeoutError:
        raise Layer45Error(
            f"{path}: the daemon did not answer in {time_out_s:g} s; it may be at it still"
        ) from None
    except msgspec.DecodeError:
        raise Layer45Error(
            f"{path}: the daemon's answer is not one of ours; is another program there?"
        ) from None
    except OSError as error:
        raise Layer45Error(f"{path}: {error.strerror or error}") from None
    if not reply.ok:
        raise _refused(reply.problems)
    return reply.result


def _refused(problems: list[str]) -> Layer45Error:
    return Layer45Error(problems[0]) if len(problems) == 1 else ConfigError(problems)


def _exchange(path: Path, request: bytes, time_out_s: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(time_out_s)
        connection.connect(str(path))
        with contextlib.suppress(BrokenPipeError):  # refused before it was read: the answer is there already
            connection.sendall(request)
        parts = []
        while part := connection.recv(READ_BYTES):
            parts.append(part)
            if part.endswith(b"\n"):
                return b"".join(parts)
    raise Layer45Error(f"{path}: the daemon hung up without an answer")
