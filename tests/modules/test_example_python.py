"""example_python: what it compresses comes back, and what nobody compressed is dropped."""

import zlib
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Passage, Road
from .lengths import EVERY_LENGTH, datagrams
from .wire import datagram, is_sound

Travel = Callable[..., tuple[Passage, Passage]]
CHAIN = [{"module": "example_python"}]
ANY_INPUT = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("version", [4, 6])
def test_round_trip_for_every_length(there_and_back: Travel, version: int) -> None:
    texts = [datagram(b"text " * (each // 5), version) for each in EVERY_LENGTH]
    sent = datagrams(version, 1) + texts
    out, back = there_and_back(CHAIN, sent)
    assert back.packets == sent
    assert all(map(is_sound, out.packets))
    assert sum(out.counted().values()) == len(sent)
    assert back.counted() == {"restored": len(sent)}


def test_it_compresses_what_gets_shorter(road: Road) -> None:
    passage = road(CHAIN, "egress", [datagram(bytes(1000)), datagram(b"short")])
    assert len(passage.payloads[0]) < 50
    assert passage.payloads[1] == b"\0short"
    assert passage.counted() == {"compressed": 1, "stored": 1}


def test_no_room(road: Road) -> None:
    sent = [each for each in datagrams(4) if len(each) == 65531]
    passage = road(CHAIN, "egress", sent)
    assert passage.packets == sent
    assert passage.counted() == {"no_room": 1}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\2unknown",
        b"\1not zlib",
        b"\1" + zlib.compress(b"cut short" * 20)[:-2],
        b"\1" + zlib.compress(b"end") + b"more",
        b"\1" + zlib.compress(bytes(70_000)),
        b"\1" + zlib.compress(bytes(10_000_000)),
    ],
)
def test_hostile_datagrams_are_dropped(road: Road, payload: bytes) -> None:
    passage = road(CHAIN, "ingress", [datagram(payload)])
    assert passage.packets == []
    assert passage.counted() == {"undecodable": 1}


@given(st.lists(st.binary(max_size=100), max_size=20))
@ANY_INPUT
def test_any_datagram_is_restored_or_dropped(road: Road, contents: list[bytes]) -> None:
    wire = [datagram(each) for content in contents for each in (content, b"\1" + content, b"\0" + content)]
    passage = road(CHAIN, "ingress", wire)
    assert sum(passage.counted().values()) == len(wire)
    assert passage.engine["module_errors"] == 0
