"""Counters with notice = true: the daemon tells of each once, as long as the chain lives."""

from typing import Any

import pytest
import structlog.testing

from layer45.daemon import Daemon

from .conftest import Configuration
from .test_daemon import BULK, VOICE, Stage, StandInEngine, make, stage, started

__all__ = ["make", "stage", "started"]

TWICE = VOICE + 'chain = [ { module = "odd" }, { module = "odd" } ]\n'
COUNTERS = """
[counter.lost]
notice = true
help = "packets gone for ever"
[counter.late]
notice = true
help = "packets too late"
[counter.seen]
help = "packets"
"""
LOST = {"policy": "voice", "module": "odd", "counter": "lost", "meaning": "packets gone for ever"}
LATE = {**LOST, "counter": "late", "meaning": "packets too late"}


@pytest.fixture
def odd(started: Daemon, stage: Stage, configuration: Configuration) -> Daemon:
    """Runs `odd` twice in the chain of voice."""
    folder = configuration.module("odd")
    with (folder / "module.toml").open("a") as manifest:
        manifest.write(COUNTERS)
    configuration.policies(TWICE)
    started.reload()
    counting(stage)
    return started


def counting(stage: Stage, **counters: int) -> None:
    """What the second instance has counted; the first one nothing."""
    nothing = {"lost": 0, "late": 0, "seen": 0}
    stage.instances = [{"module": "odd", "counters": each} for each in (nothing, {**nothing, **counters})]


def told(daemon: Daemon) -> list[dict[str, Any]]:
    """What a look at the counters logs."""
    with structlog.testing.capture_logs() as lines:
        daemon.tell_notices()
    assert all(line.pop("log_level") == "warning" and line.pop("event") for line in lines)
    return list(lines)


def test_a_counter_with_notice_is_told_of_once(odd: Daemon, stage: Stage) -> None:
    counting(stage, seen=9)
    assert told(odd) == []
    counting(stage, seen=9, lost=1)
    assert told(odd) == [LOST]
    counting(stage, seen=9, lost=7, late=1)
    assert told(odd) == [LATE]
    assert told(odd) == []


def test_a_reload_that_keeps_the_chain_repeats_no_notice(
    odd: Daemon, stage: Stage, configuration: Configuration
) -> None:
    counting(stage, lost=1)
    assert told(odd) == [LOST]
    configuration.policies(TWICE + BULK)
    odd.reload()
    assert told(odd) == []
    counting(stage, lost=1, late=1)
    assert told(odd) == [LATE]


def test_a_new_chain_has_new_notices(odd: Daemon, stage: Stage, configuration: Configuration) -> None:
    counting(stage, lost=1)
    assert told(odd) == [LOST]
    configuration.policies(TWICE + 'on_failure = "closed"\n')
    odd.reload()
    assert told(odd) == [LOST]


def test_without_notices_the_engine_is_not_asked(
    started: Daemon, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(StandInEngine, "stats")
    assert told(started) == []
