"""The watchdog is fed while a request is worked on and workers live; not when the control thread hangs."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layer45 import service as service_module
from layer45.control_messages import Flows
from layer45.errors import Layer45Error
from layer45.service import Service

from .test_daemon import Stage, stage
from .test_service import end, service, while_it_runs

__all__ = ["service", "stage"]


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When it was."""
    times: list[float] = []
    monkeypatch.setattr(service_module, "feed_watchdog", lambda: times.append(time.monotonic()))
    return times


def slow(seconds: float) -> Callable[..., Any]:
    def work(*_: object) -> list[Any]:
        time.sleep(seconds)
        return []

    return work


def during(service: Service, path: Path, work: Callable[[], object]) -> tuple[float, float]:
    """Runs the service until the work, in another thread, is done; when that began and ended."""
    times: list[float] = []

    def worked() -> None:
        times.append(time.monotonic())
        work()
        times.append(time.monotonic())
        end()

    thread = while_it_runs(path, worked)
    asyncio.run(service.run())
    thread.join()
    return times[0], times[1]


def asked(service: Service) -> Callable[[], object]:
    return lambda: service._worker.submit(service._answer, Flows()).result()


def between(times: list[float], span: tuple[float, float]) -> list[float]:
    return [each for each in times if span[0] + 0.2 < each < span[1] - 0.1]


def test_a_request_that_takes_its_time(service: Service, tmp_path: Path, fed: list[float]) -> None:
    service._daemon.flows = slow(1.0)  # type: ignore[method-assign]
    span = during(service, tmp_path / "run/control.sock", asked(service))
    assert span[1] - span[0] >= 1.0 and len(between(fed, span)) > 10


def test_one_that_takes_too_long(
    service: Service, tmp_path: Path, fed: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "LONGEST_WORK_S", 0.1)
    service._daemon.flows = slow(1.0)  # type: ignore[method-assign]
    assert between(fed, during(service, tmp_path / "run/control.sock", asked(service))) == []


def test_a_look_at_the_engine_that_hangs(service: Service, tmp_path: Path, fed: list[float]) -> None:
    """Nobody asked for that: the service manager may think that all hangs."""

    def hang() -> None:
        service._daemon.tell_notices = slow(1.0)  # type: ignore[method-assign]
        time.sleep(0.9)
        service._daemon.tell_notices = slow(0)  # type: ignore[method-assign]

    assert between(fed, during(service, tmp_path / "run/control.sock", hang)) == []


def test_a_worker_that_dies_meanwhile(
    service: Service, stage: Stage, tmp_path: Path, fed: list[float]
) -> None:
    """It is not fed any more, and the daemon ends with its reason as soon as it can."""
    service._daemon.flows = slow(1.0)  # type: ignore[method-assign]

    def ask() -> None:
        service._worker.submit(service._answer, Flows())
        time.sleep(0.3)
        stage.alive = False

    thread = while_it_runs(tmp_path / "run/control.sock", ask)
    with pytest.raises(Layer45Error, match="worker of queue 4500 has died"):
        asyncio.run(service.run())
    thread.join()
