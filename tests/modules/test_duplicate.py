"""duplicate: every datagram is delivered once while one copy arrives, whatever else happens to the copies."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.modules.duplicate.reference import MARK, mark_of

from .conftest import Passage, Road
from .lengths import EVERY_LENGTH, datagrams
from .wire import MILLISECOND, Record, datagram, is_sound, payload_of, unnumbered

Travel = Callable[..., tuple[Passage, Passage]]
DUPLICATE = {"module": "duplicate"}
WINDOW = 1024
ANY_INPUT = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def marked(payload: bytes, number: int, copy: int = 0, epoch: int = 1) -> bytes:
    return datagram(payload + mark_of(len(payload), copy, epoch, number % (1 << 32)))


def received(road: Road, wire: list[bytes]) -> Passage:
    """From the hot code; the reference must agree."""
    hot = road([DUPLICATE], "ingress", wire)
    reference = road([DUPLICATE], "ingress", wire, reference=True)
    assert (hot.packets, hot.counters) == (reference.packets, reference.counters)
    assert hot.engine["module_errors"] == 0
    return hot


@pytest.mark.parametrize("version", [4, 6])
def test_round_trip_for_every_length(there_and_back: Travel, version: int) -> None:
    sent = datagrams(version, MARK.size)
    out, back = there_and_back([DUPLICATE], sent)
    assert list(map(unnumbered, back.packets)) == list(map(unnumbered, sent))
    assert len(out.packets) == 2 * len(sent)
    assert all(map(is_sound, out.packets))
    assert out.counted() == {"marked": len(sent), "copies_sent": len(sent)}
    assert back.counted() == {"delivered": len(sent), "duplicates": len(sent)}
    assert set(out.live.values()) <= {0}


@pytest.mark.parametrize("copies", [2, 3, 8])
def test_copies_are_spaced_and_differ_in_number_only(road: Road, copies: int) -> None:
    chain = [{**DUPLICATE, "copies": copies, "spacing_ms": 2.5}]
    sent = [Record(datagram(b"x"), 1000 * MILLISECOND)]
    for reference in (False, True):
        out = road(chain, "egress", sent, reference=reference)
        times = [record.time_ns for record in out.records]
        assert times == [int((1000 + 2.5 * copy) * MILLISECOND) for copy in range(copies)]
        epochs = {MARK.unpack(each[-MARK.size :])[3] for each in out.payloads}
        assert len(epochs) == 1
        epoch = epochs.pop()
        assert out.payloads == [b"x" + mark_of(1, copy, epoch, 0) for copy in range(copies)]


def test_reference_and_hot_code_understand_each_other(road: Road) -> None:
    sent = datagrams(4, MARK.size) + datagrams(6, MARK.size)
    for reference in (False, True):
        out = road([DUPLICATE], "egress", sent, reference=reference)
        back = road([DUPLICATE], "ingress", out.records, reference=not reference)
        assert list(map(unnumbered, back.packets)) == list(map(unnumbered, sent))


def test_flows_begin_with_different_epochs(road: Road) -> None:
    sent = [datagram(b"", port=port) for port in range(5000, 5020)]
    out = road([DUPLICATE], "egress", sent)
    assert len({MARK.unpack(each)[3] for each in out.payloads}) == len(sent)


@pytest.mark.parametrize("seed", range(5))
def test_any_loss_and_order_of_copies_delivers_each_once(road: Road, seed: int) -> None:
    chance = random.Random(seed)
    sent = [datagram(b"number %d" % at) for at in range(len(EVERY_LENGTH))]
    out = road([{**DUPLICATE, "copies": 3}], "egress", sent).packets
    kept = [each for each in out if chance.random() < 0.5]
    late = [(at + 3 * chance.random() * chance.choice([1, 100]), each) for at, each in enumerate(kept)]
    back = received(road, [each for _, each in sorted(late, key=lambda pair: pair[0])])
    assert Counter(back.payloads) == Counter({payload_of(each)[: -MARK.size] for each in kept})


def test_equal_datagrams_of_the_application_all_arrive(there_and_back: Travel) -> None:
    sent = [datagram(b"same")] * 50
    assert there_and_back([{**DUPLICATE, "copies": 4}], sent)[1].payloads == [b"same"] * 50


def test_a_number_behind_the_window_is_dropped(road: Road) -> None:
    wire = [marked(b"new", WINDOW), marked(b"last in the window", 1), marked(b"old", 0, copy=1)]
    passage = received(road, wire)
    assert passage.payloads == [b"new", b"last in the window"]
    assert passage.counted() == {"delivered": 2, "too_old": 1}


def test_numbers_wrap(road: Road) -> None:
    wire = [marked(b"%d" % at, at, copy) for copy in range(2) for at in range(-3, 4)]
    assert received(road, wire).payloads == [b"%d" % at for at in range(-3, 4)]


def test_a_restarted_peer_is_heard_at_once(road: Road) -> None:
    wire = [marked(b"a", at, epoch=1) for at in range(5000)] + [marked(b"b", at, epoch=2) for at in range(5)]
    late = [marked(b"a", 4999, copy=1, epoch=1), marked(b"b", 5, epoch=2)]
    passage = received(road, wire + late)
    assert passage.payloads == [b"a"] * 5000 + [b"b"] * 6
    assert passage.counted() == {"delivered": 5006, "duplicates": 1, "restarts": 1}


@pytest.mark.parametrize("ahead", [2000, 1 << 20, (1 << 31) - 1, 1 << 31])
def test_a_forged_number_costs_64_datagrams_at_most(road: Road, ahead: int) -> None:
    wire = [marked(b"", at) for at in range(10)]
    wire += [marked(b"forged", 10 + ahead)] + [marked(b"", at) for at in range(10, 200)]
    passage = received(road, wire)
    assert passage.counters[0]["delivered"] >= len(wire) - 64
    assert passage.counters[0]["too_old"] <= 64


def test_forged_epochs_lose_nothing(road: Road) -> None:
    chance = random.Random(1)
    wire = []
    for at in range(300):
        forged = marked(b"forged", chance.getrandbits(32), epoch=chance.getrandbits(32))
        wire += [marked(b"%d" % at, at), forged]
    own = [each for each in received(road, wire).payloads if each != b"forged"]
    assert own == [b"%d" % at for at in range(300)]


@pytest.mark.parametrize("unmarked", ["pass", "drop"])
def test_datagrams_without_a_mark(road: Road, unmarked: str) -> None:
    other_version = bytearray(mark_of(0, 0, 1, 1))
    other_version[2] = 2
    wire = [datagram(b""), datagram(b"plain"), datagram(bytes(100)), datagram(bytes(other_version))]
    for reference in (False, True):
        passage = road([{**DUPLICATE, "unmarked": unmarked}], "ingress", wire, reference=reference)
        assert passage.packets == (wire if unmarked == "pass" else [])
        assert passage.counted() == {"unmarked": 4}


def test_no_room(road: Road) -> None:
    sent = [datagram(bytes(65503 - MARK.size + 1))]
    for reference in (False, True):
        passage = road([DUPLICATE], "egress", sent, reference=reference)
        assert passage.packets == sent
        assert passage.counted() == {"no_room": 1}


numbers = st.integers(0, 3000) | st.integers(0, (1 << 32) - 1)


@given(st.lists(st.tuples(numbers, st.integers(0, 3), st.integers(1, 3)), max_size=200))
@ANY_INPUT
def test_any_numbers_are_judged_as_the_reference_does(road: Road, marks: list[tuple[int, int, int]]) -> None:
    received(
        road, [marked(b"%d" % at, number, copy, epoch) for at, (number, copy, epoch) in enumerate(marks)]
    )


@given(
    st.binary(max_size=60),
    st.tuples(st.integers(0, 100), st.integers(1, 255)) | st.none(),
    st.integers(0, 20),
)
@ANY_INPUT
def test_damaged_marks_are_no_marks(
    road: Road, content: bytes, change: tuple[int, int] | None, cut: int
) -> None:
    payload = bytearray(payload_of(marked(content, 5)))
    if change:
        payload[change[0] % len(payload)] ^= change[1]
    received(road, [datagram(bytes(payload[: len(payload) - cut]))])
