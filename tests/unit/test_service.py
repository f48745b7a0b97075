"""The event loop: signals, the service manager, a worker that dies. Engine and rules are stand-ins."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from layer45 import service as service_module
from layer45.cgroups import Cgroups
from layer45.control_client import ask
from layer45.control_messages import ChangeState, Flows, Reload, Status
from layer45.daemon import Parts
from layer45.errors import Layer45Error
from layer45.loader import load
from layer45.service import Service

from .conftest import Configuration
from .test_daemon import VOICE, Stage, StandInEngine, StandInRules, stage

__all__ = ["stage"]


@pytest.fixture
def service(
    stage: Stage, configuration: Configuration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Service:
    monkeypatch.setattr(service_module, "HEALTH_INTERVAL_S", 0.05)
    configuration.settings(f'control_socket = "{tmp_path}/run/control.sock"\n')
    configuration.policies(VOICE)
    (tmp_path / "cgroups").mkdir()
    parts = Parts(
        load=load,
        engine=lambda settings: StandInEngine(stage),
        rules=lambda settings: StandInRules(stage),
        cgroups=lambda root: Cgroups(root, tmp_path / "cgroups"),
    )
    return Service(configuration.directory, parts, structlog.get_logger())


def while_it_runs(path: Path, work: Callable[[], None]) -> threading.Thread:
    """Does work in a thread once the control socket is there."""

    def wait_and_work() -> None:
        until = time.monotonic() + 10
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
        work()

    thread = threading.Thread(target=wait_and_work)
    thread.start()
    return thread


def end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_it_in_order(service: Service, stage: Stage, tmp_path: Path) -> None:
    thread = while_it_runs(tmp_path / "run/control.sock", end)
    assert asyncio.run(service.run()) == 0
    thread.join()
    assert stage.taken()[-5:] == ["divert_nothing", "stop", "remove", "stop", "release"]
    assert [each.name for each in (tmp_path / "run").iterdir()] == ["control.sock.inheritance"]


def test_a_dead_worker_ends_it_with_an_error(service: Service, stage: Stage, tmp_path: Path) -> None:
    thread = while_it_runs(tmp_path / "run/control.sock", lambda: setattr(stage, "alive", False))
    with pytest.raises(Layer45Error, match="worker of queue 4500 has died"):
        asyncio.run(service.run())
    thread.join()
    assert "remove" in stage.calls


def test_it_answers_over_its_socket(service: Service, tmp_path: Path) -> None:
    heard: list[object] = []
    path = tmp_path / "run/control.sock"

    def talk() -> None:
        heard.append(ask(path, Status(), tmp_path)["generation"])
        heard.append(ask(path, Flows(), tmp_path))
        heard.append(ask(path, Reload(), tmp_path)["generation"])
        heard.append(ask(path, ChangeState("voice", "deprecate"), tmp_path)["state"])
        end()

    thread = while_it_runs(path, talk)
    asyncio.run(service.run())
    thread.join()
    assert heard == [1, [], 2, "deprecated"]


def test_notices_are_looked_for_while_it_runs(service: Service, tmp_path: Path) -> None:
    looks: list[str] = []
    service._daemon.tell_notices = lambda: looks.append("")  # type: ignore[method-assign]

    def wait() -> None:
        until = time.monotonic() + 10
        while len(looks) < 3 and time.monotonic() < until:
            time.sleep(0.01)
        end()

    thread = while_it_runs(tmp_path / "run/control.sock", wait)
    asyncio.run(service.run())
    thread.join()
    assert len(looks) >= 3


def test_a_start_that_fails_ends_with_its_error(service: Service, stage: Stage, tmp_path: Path) -> None:
    stage.fail["apply"] = 1
    with pytest.raises(Layer45Error, match="apply failed"):
        asyncio.run(service.run())
    assert list((tmp_path / "run").iterdir()) == []


def test_the_watchdog_is_fed_while_all_is_well(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        heard: list[bytes] = []

        def listen() -> None:
            while len(heard) < 4:
                heard.append(manager.recv(4096))
            end()

        thread = while_it_runs(tmp_path / "run/control.sock", listen)
        asyncio.run(service.run())
        thread.join()
    assert heard[0].startswith(b"READY=1\nSTATUS=1 policies")
    assert heard[1:] == [b"WATCHDOG=1"] * 3
