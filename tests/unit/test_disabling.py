"""A policy is disabled, loudly, and put back; its customized connections are closed meanwhile."""

from collections.abc import Collection
from dataclasses import replace

import structlog
from structlog.testing import capture_logs

from layer45.disabling import Disabling
from layer45.failures import ChainKey, Faults, Tally

VOICE = Tally("voice", (1, "v"), faults=(Faults("tag", 1),), on_failure="closed")
WEB = Tally("web", (2, "w"), faults=(Faults("stream_tag", 1),), agrees=True)


class StandInEngine:
    """tallies: what it has counted. calls: what it was told."""

    def __init__(self, *tallies: Tally) -> None:
        self.counted = list(tallies)
        self.calls: list[tuple[str, bool]] = []
        self.closed: list[list[bytes]] = []

    def tallies(self) -> list[Tally]:
        return self.counted

    def disable(self, key: ChainKey, disabled: bool) -> None:
        self.calls.append((key[1], disabled))

    def customized(self, policies: Collection[str] | None = None) -> Collection[bytes]:
        return [f"one of {name}".encode() for name in policies or ()]

    def close(self, keys: Collection[bytes]) -> int:
        self.closed.append(list(keys))
        return len(keys)


def failing(tally: Tally, count: int) -> Tally:
    worse = tuple(replace(each, errors=count) for each in tally.faults)
    return replace(tally, begun=(count, count), faults=worse)


def test_loud_once_and_shown_until_it_is_put_back() -> None:
    engine = StandInEngine(failing(VOICE, 500), WEB)
    disabling = Disabling(100, structlog.get_logger())
    with capture_logs() as logs:
        for _ in range(3):
            disabling.look(engine, engine.close)
    assert logs == [
        {
            "log_level": "error", "event": "policy disabled", "policy": "voice", "module": "tag",
            "instance": 1, "failures": 500, "packets": 500, "seconds": 10, "reason": "it answered ERROR",
            "its_packets": "are dropped",
        }
    ]  # fmt: skip
    assert engine.calls == [("v", True)] and engine.closed == []
    shown = disabling.describe("voice")
    assert shown and shown["since"].endswith("Z") and shown["failures"] == 500
    assert disabling.describe("web") is None
    assert disabling.put_back(engine, "web") is False
    assert disabling.put_back(engine, "voice") is True and engine.calls[1:] == [("v", False)]
    assert disabling.describe("voice") is None
    disabling.look(engine, engine.close)
    assert len(engine.calls) == 2  # what it did before does not count any more
    engine.counted[0] = failing(VOICE, 700)
    disabling.look(engine, engine.close)
    assert engine.calls[2:] == [("v", True)]
    assert disabling.put_back(engine) is True


def test_connections_are_closed_for_as_long_as_it_is_disabled() -> None:
    engine = StandInEngine(VOICE, failing(WEB, 500))
    disabling = Disabling(100, structlog.get_logger())
    disabling.look(engine, engine.close)
    disabling.look(engine, engine.close)
    assert engine.closed == [[b"one of web"]] * 2
    disabling.put_back(engine)
    disabling.look(engine, engine.close)
    assert len(engine.closed) == 2


def test_another_chain_of_the_policy_is_not_disabled() -> None:
    engine = StandInEngine(failing(VOICE, 500))
    disabling = Disabling(100, structlog.get_logger())
    disabling.look(engine, engine.close)
    engine.counted = [replace(VOICE, key=(1, "new"))]
    disabling.look(engine, engine.close)
    assert disabling.describe("voice") is None
    assert disabling.put_back(engine) is False
