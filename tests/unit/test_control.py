"""The control socket: the protocol, and clients that do not keep to it."""

import asyncio
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45 import control
from layer45.control import MOST_CLIENTS, ControlServer
from layer45.control_client import ask
from layer45.control_messages import LONGEST_REQUEST_BYTES, ExecPrepare, Flows, Reload, Stats, Status
from layer45.errors import ConfigError, Layer45Error
from layer45.peer import Peer

TIME_OUT_S = 0.5
FLOW = {"local": "10.0.0.1:5", "remote": "x" * 200}


class Running:
    """A server in a thread of its own. slow: set while a reload is under way; go: lets it end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slow, self.go = threading.Event(), threading.Event()
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(1)
        self._server = ControlServer(path, self.answer, self._pool, structlog.get_logger())
        self._server.time_out_s = TIME_OUT_S
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(self._server.open)

    def _run(self, work: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(5)

    def close(self) -> None:
        self._run(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown()

    def answer(self, request: object) -> object:
        match request:
            case Status():
                return {"pid": os.getpid()}
            case Flows(limit=limit):
                return [FLOW] * limit
            case Reload():
                self.slow.set()
                self.go.wait(5)
                raise ConfigError(["a.toml:1: x: bad", "b.toml:2: y: bad"])
            case ExecPrepare(policy=policy):
                raise Layer45Error(f"no policy {policy}")
            case _:
                raise ZeroDivisionError


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    server = Running(tmp_path / "control.sock")
    yield server
    server.go.set()
    server.close()
    assert not server.path.exists()


def speak(path: Path, *parts: bytes) -> bytes:
    """What comes back, until the server hangs up or says nothing more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(3)
        client.connect(str(path))
        heard = b""
        try:
            for part in parts:
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(65536):
                heard += part
        except ConnectionError:
            pass
        return heard


def replies(path: Path, *parts: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in speak(path, *parts).splitlines()]


def still_serves(running: Running) -> bool:
    return bool(ask(running.path, Status(), Path("/etc/layer45")) == {"pid": os.getpid()})


def test_a_question_and_its_answer(running: Running) -> None:
    assert replies(running.path, b'{"command":"status"}\n') == [{"ok": True, "result": {"pid": os.getpid()}}]


def test_many_questions_on_one_connection(running: Running) -> None:
    line = b'{"command":"flows","limit":2}\n'
    assert replies(running.path, line * 3) == [{"ok": True, "result": [FLOW] * 2}] * 3


def test_the_socket_is_for_root_and_its_group(running: Running) -> None:
    assert stat.S_IMODE(running.path.stat().st_mode) == 0o660


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[]", b"null", b"status", b"\0\0\0", b"\xff\xfe", b'{"command":"stop"}', b'{"command":7}',
     b'{"command":"status","extra":1}', b'{"command":"flows","limit":0}',
     b'{"command":"flows","limit":1000000000}', b'{"command":"flows","limit":"1"}',
     b'{"command":"exec-prepare"}', b'{"command":"exec-prepare","policy":""}',
    b'{"command":"attach","policy":"a"}', b'{"command":"attach","policy":"a","pid":0}',
    b'{"command":"detach","policy":"a","pid":4194305}',
     b'{"command":"status"', b"[" * 5000],
)  # fmt: skip
def test_what_is_no_request_gets_one_line(running: Running, line: bytes) -> None:
    (reply,) = replies(running.path, line + b"\n")
    assert reply["ok"] is False
    assert len(reply["problems"]) == 1
    assert "\n" not in reply["problems"][0]
    assert still_serves(running)


def test_problems_come_one_by_one(running: Running) -> None:
    running.go.set()
    (reply,) = replies(running.path, b'{"command":"reload"}\n')
    assert reply == {"ok": False, "problems": ["a.toml:1: x: bad", "b.toml:2: y: bad"]}


def test_an_accident_in_the_daemon_is_one_line(running: Running) -> None:
    (reply,) = replies(running.path, b'{"command":"stats"}\n')
    assert reply["problems"] == ["the daemon could not answer; its log says why"]
    assert still_serves(running)


def test_a_request_that_is_too_long_is_refused(running: Running) -> None:
    (reply,) = replies(running.path, b'{"command":"status","x":"' + b"y" * (2 * LONGEST_REQUEST_BYTES))
    assert "more than" in reply["problems"][0]
    assert still_serves(running)


def test_half_a_request_is_no_request(running: Running) -> None:
    assert speak(running.path, b'{"command":"stat') == b""
    assert still_serves(running)


def test_silence_ends_with_the_time_out_and_blocks_nobody(running: Running) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.connect(str(running.path))
        silent.send(b"{")
        assert still_serves(running)
        silent.settimeout(TIME_OUT_S + 2)
        before = time.monotonic()
        with _hang_up():
            assert silent.recv(1) == b""
        assert time.monotonic() - before < TIME_OUT_S + 1


class _hang_up:
    """Either end-of-file or a reset: the server has closed."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, *_: object) -> bool:
        return kind is None or issubclass(kind, ConnectionError)


def test_a_client_that_does_not_read_blocks_nobody(running: Running) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.connect(str(running.path))
        deaf.send(b'{"command":"flows","limit":100000}\n')  # some 20 MB, more than any socket buffer
        time.sleep(0.1)
        assert still_serves(running)
        time.sleep(TIME_OUT_S + 0.5)
        received = 0
        with _hang_up():
            while part := deaf.recv(1 << 20):
                received += len(part)
        assert received < 20_000_000


def test_a_large_answer_arrives_whole(running: Running) -> None:
    assert len(ask(running.path, Flows(50_000), Path("/etc/layer45"))) == 50_000


def test_too_many_clients_are_told_so(running: Running) -> None:
    clients = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(MOST_CLIENTS)]
    try:
        for client in clients:
            client.connect(str(running.path))
        time.sleep(0.1)
        with pytest.raises(Layer45Error, match="busy"):
            ask(running.path, Status(), Path("/etc/layer45"))
    finally:
        for client in clients:
            client.close()
    time.sleep(0.1)
    assert still_serves(running)


def test_clients_that_vanish_leave_nothing(running: Running) -> None:
    for _ in range(3 * MOST_CLIENTS):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(running.path))
            client.send(b'{"command":"flows","limit":1000}\n')
    time.sleep(0.2)
    assert still_serves(running)


def test_closing_hangs_up_on_everybody(tmp_path: Path) -> None:
    server = Running(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        client.connect(str(server.path))
        time.sleep(0.1)
        server.close()
        with _hang_up():
            assert client.recv(1) == b""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_any_bytes_get_lines_of_json(running: Running, content: bytes) -> None:
    for reply in replies(running.path, content):
        assert set(reply) <= {"ok", "result", "problems"}
    assert still_serves(running)


def test_a_stranger_is_refused(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "peer_of", lambda connection: Peer(7, 1000, frozenset([1000])))
    with pytest.raises(Layer45Error, match=r"uid 1000 may not command"):
        ask(running.path, Status(), Path("/etc/layer45"))


def test_a_leftover_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    control.bind_socket(path).close()
    path.unlink()
    path.write_text("precious")
    with pytest.raises(Layer45Error, match="is not a socket"):
        control.bind_socket(path)
    assert path.read_text() == "precious"


# ---- the client's side


def test_no_daemon_names_the_socket_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(Layer45Error, match=r"nobody\.sock: no daemon .* layer45 run --config /etc/mine"):
        ask(tmp_path / "nobody.sock", Stats(), Path("/etc/mine"))


def test_a_dead_daemons_socket_is_no_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(Layer45Error, match="no daemon is running"):
        ask(tmp_path / "dead.sock", Stats(), Path("/etc/mine"))


@pytest.mark.parametrize(
    ("says", "expected"), [(b"SSH-2.0\n", "not one of ours"), (b"", "hung up"), (None, "did not answer")]
)
def test_another_program_at_the_socket(tmp_path: Path, says: bytes | None, expected: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(tmp_path / "other.sock"))
        other.listen()
        silent = threading.Event()

        def serve() -> None:
            connection, _ = other.accept()
            with connection:
                connection.recv(100)
                if says is None:
                    silent.wait(3)
                else:
                    connection.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Layer45Error, match=expected):
            ask(tmp_path / "other.sock", Stats(), Path("/etc/mine"), time_out_s=0.3)
        silent.set()
        thread.join()
