"""The order of a handover, and that whoever of the two fails leaves the other one in charge.

Engines and rules are stand-ins; the daemons, the control socket between them and their files are real.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from layer45.control_client import ask
from layer45.control_messages import ChangeState, GivenBack, Reload, Status, TakenOver, TakeOver
from layer45.daemon import Daemon
from layer45.errors import Layer45Error
from layer45.handover import Predecessor, find_predecessor
from layer45.inheritance import inheritance_path
from layer45.lock import lock_path
from layer45.service import Service

from .conftest import Configuration
from .test_daemon import BULK, VOICE, Stage, make, stage

__all__ = ["make", "stage"]

MARKS = "mark_mask = 0x700\n"


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def running(
    make: Callable[[], Daemon],
    stage: Stage,
    path: Path,
) -> Iterator[Service]:
    """A service in another thread; it is ended if it has not."""
    daemon = make()
    service = Service(daemon.directory, daemon._parts, structlog.get_logger())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(_without_signals(service, loop),))
    thread.start()
    eventually(path.exists)
    ask(path, Status(), path)
    stage.taken()
    yield service
    loop.call_soon_threadsafe(service._end.set)
    thread.join(10)
    assert not thread.is_alive()
    loop.close()


async def _without_signals(service: Service, loop: asyncio.AbstractEventLoop) -> int:
    loop.add_signal_handler = lambda *_: None  # type: ignore[method-assign, assignment]  not in this thread
    return await service.run()


@pytest.fixture
def predecessor(running: Service, path: Path) -> Iterator[Predecessor]:
    """Of which everything was asked. It reads queue 4500."""
    (path.parents[1] / "bound").write_text(" 4500  31337     0 2 65531     0     0        0  1\n")
    found = find_predecessor(path)
    assert found is not None
    with found:
        found.begin()
        yield found


def test_its_queues_then_the_rules_then_the_predecessor_empties_its_own(
    predecessor: Predecessor,
    make: Callable[[], Daemon],
    stage: Stage,
    running: Service,
    path: Path,
) -> None:
    heir = make()
    heir.start(predecessor)
    assert stage.taken() == ["adopt", "prepare", "engine", "apply voice", "install voice", "tag"]
    predecessor.__exit__(None, None, None)
    eventually(lambda: "let_go" in stage.calls)
    assert stage.taken() == ["stop", "let_go"]
    assert path.exists()
    assert lock_path(path).read_text() == f"{os.getpid()}\n"
    assert heir.plan.queues[0].first == 4501
    heir.stop()
    assert stage.taken() == ["untag", "divert_nothing", "stop", "remove", "stop", "release"]
    assert not lock_path(path).exists()
    predecessor.listener.close()


@pytest.mark.parametrize("fails", ["prepare", "engine", "apply", "install"])
def test_a_heir_that_fails_takes_nothing_down(
    predecessor: Predecessor,
    make: Callable[[], Daemon],
    stage: Stage,
    path: Path,
    running: Service,
    fails: str,
) -> None:
    stage.fail[fails] = 1
    heir = make()
    with pytest.raises(Layer45Error, match=f"{fails} failed") as caught:
        heir.start(predecessor)
    predecessor.__exit__(Layer45Error, caught.value, None)
    assert ask(path, Status(), heir.directory)["successor"]["problems"] == [f"{fails} failed"]
    calls = stage.taken()
    assert not {"remove", "divert_nothing", "untag"} & set(calls)
    assert [call for call in calls if call.startswith("install")][-1:] == ["install voice"]  # as it was
    if fails == "install":  # its queues are there until the rules lead to them no more
        assert calls[-4:] == ["install voice", "tag", "stop", "release"]
    assert lock_path(path).exists()
    assert ask(path, ChangeState("voice", "deactivate"), heir.directory)["changed"]
    predecessor.listener.close()


def test_nothing_changes_while_somebody_takes_over(predecessor: Predecessor, path: Path) -> None:
    for request in (Reload(), ChangeState("voice", "revoke"), TakeOver(1)):
        with pytest.raises(
            Layer45Error, match=f"^pid {os.getpid()} is taking over from this daemon; try again$"
        ):
            ask(path, request, path)
    ask(path, GivenBack(1, ["not the one"]), path)
    with pytest.raises(Layer45Error, match="pid 1 is not taking over"):
        ask(path, TakenOver(1), path)
    with pytest.raises(Layer45Error, match="is taking over"):
        ask(path, Reload(), path)
    predecessor.lock.leave()
    predecessor.listener.close()


def test_a_predecessor_that_hangs_up_leaves_the_heir_in_charge(
    predecessor: Predecessor,
    make: Callable[[], Daemon],
    stage: Stage,
) -> None:
    heir = make()
    predecessor._connection.close()
    heir.start(predecessor)
    assert predecessor.dismissed
    assert [call for call in stage.taken() if call.startswith("install")][:1] == ["install voice"]
    heir._undo.pop_all()  # the other one has the files here, and tidies up
    predecessor.listener.close()


def test_a_stop_waits_until_it_is_clear_whose_the_rules_are(
    predecessor: Predecessor, running: Service, stage: Stage
) -> None:
    running._loop.call_soon_threadsafe(running._end.set)
    time.sleep(0.3)
    assert stage.taken() == []
    predecessor.give_back("something failed")
    eventually(lambda: "release" in stage.calls)
    assert stage.taken()[-5:] == ["divert_nothing", "stop", "remove", "stop", "release"]
    predecessor.lock.leave()
    predecessor.listener.close()


def test_other_mark_bits_cannot_be_taken_over(
    predecessor: Predecessor,
    make: Callable[[], Daemon],
    configuration: Configuration,
    path: Path,
) -> None:
    heir = make()
    configuration.settings(f'control_socket = "{path}"\n{MARKS}')
    with pytest.raises(Layer45Error, match="another mark_mask, or runs in another network namespace"):
        heir.start(predecessor)
    predecessor.lock.leave()
    predecessor.listener.close()


def test_the_heir_knows_what_commands_said(
    running: Service,
    make: Callable[[], Daemon],
    configuration: Configuration,
    path: Path,
) -> None:
    configuration.policies(VOICE + BULK)
    ask(path, Reload(), path)
    ask(path, ChangeState("voice", "deprecate"), path)
    configuration.policies(BULK + VOICE.replace("priority", "priority") + '[policy.new]\nstate = "standby"\n')
    found = find_predecessor(path)
    assert found is not None
    with found:
        found.begin()
        heir = make()
        heir.start(found)
    states = {each["name"]: (each["state"], each["state_source"]) for each in heir.status()["policies"]}
    assert states == {
        "bulk": ("active", "file"),
        "voice": ("deprecated", "command"),
        "new": ("standby", "file"),
    }
    assert inheritance_path(str(path)).stat().st_mode & 0o777 == 0o600
    found.listener.close()
    eventually(running._end.is_set)
    heir.stop()


def test_there_is_none(path: Path) -> None:
    assert find_predecessor(path) is None
