"""tag: numbers and identities come out as they went in, and nothing from the wire does more than count."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.modules.tag.reference import FIXED, MAGIC, check_of

from .conftest import Passage, Road
from .lengths import datagrams
from .wire import datagram, is_sound, payload_of

Travel = Callable[..., tuple[Passage, Passage]]
ID = "host-7"
TAG_BYTES = 12 + len(ID)
TAG = {"module": "tag", "id": ID}
ANY_INPUT = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def tagged(
    payload: bytes, sequence: int, identity: bytes = b"host-7", version: int = 1, front: bool = False
) -> bytes:
    check = check_of(identity, len(payload), version, sequence)
    fixed = FIXED.pack(MAGIC, version, len(identity), check, sequence)
    return datagram(fixed + identity + payload if front else payload + identity + fixed)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("position", ["back", "front"])
def test_round_trip_for_every_length(there_and_back: Travel, version: int, position: str) -> None:
    sent = datagrams(version, TAG_BYTES)
    out, back = there_and_back([{**TAG, "position": position}], sent)
    assert back.packets == sent
    assert all(map(is_sound, out.packets))
    assert {len(one) - len(other) for one, other in zip(out.packets, sent, strict=True)} == {TAG_BYTES}
    assert out.counted() == {"tagged": len(sent)}
    assert back.counted() == {"stripped": len(sent)}


@pytest.mark.parametrize("position", ["back", "front"])
def test_reference_does_the_same(road: Road, position: str) -> None:
    chain = [{**TAG, "position": position}]
    sent = datagrams(4, TAG_BYTES) + datagrams(6, TAG_BYTES)
    hot = road(chain, "egress", sent)
    assert road(chain, "egress", sent, reference=True).packets == hot.packets
    assert road(chain, "ingress", hot.packets, reference=True).packets == sent


@pytest.mark.parametrize("identity", ["x", "y" * 32, "hex:00 ff 4c 54"])
def test_identities_of_any_length(there_and_back: Travel, identity: str) -> None:
    sent = [datagram(b""), datagram(b"payload")]
    assert there_and_back([{"module": "tag", "id": identity}], sent)[1].packets == sent


@pytest.mark.parametrize("position", ["back", "front"])
def test_no_room(road: Road, position: str) -> None:
    sent = [datagram(bytes(65503 - TAG_BYTES + 1)), datagram(bytes(65503))]
    for reference in (False, True):
        passage = road([{**TAG, "position": position}], "egress", sent, reference=reference)
        assert passage.packets == sent
        assert passage.counted() == {"no_room": 2}
        assert passage.engine["module_errors"] == 2


def test_an_unexpected_identity_is_dropped(road: Road) -> None:
    wire = [tagged(b"a", 0, b"host-9"), tagged(b"b", 0, b"host-7"), tagged(b"c", 1, b"host-99")]
    for reference in (False, True):
        passage = road([{**TAG, "expect": "host-9"}], "ingress", wire, reference=reference)
        assert passage.payloads == [b"a"]
        assert passage.counted() == {"stripped": 1, "wrong_identity": 2}


@pytest.mark.parametrize("unmarked", ["pass", "drop"])
def test_datagrams_without_a_tag(road: Road, unmarked: str) -> None:
    wire = [datagram(b""), datagram(b"plain"), datagram(bytes(100)), tagged(b"new", 0, version=2)]
    for reference in (False, True):
        passage = road([{**TAG, "unmarked": unmarked}], "ingress", wire, reference=reference)
        assert passage.packets == (wire if unmarked == "pass" else [])
        assert passage.counted() == {"unmarked": 3, "bad_version": 1}


@pytest.mark.parametrize(
    ("sequences", "counted"),
    [
        ([5, 6, 7], {}),
        ([0, 1, 4, 5], {"gaps": 2}),
        ([0, 2, 1, 3], {"gaps": 1, "reordered": 1}),
        ([8, 8, 9], {"reordered": 1}),
        ([0xFFFFFFFF, 0, 2], {"gaps": 1}),
        ([100_000, 0, 1], {"restarts": 1}),
        ([0, 70_000, 70_001], {"restarts": 1}),
    ],
)
def test_missing_and_late_numbers(road: Road, sequences: list[int], counted: dict[str, int]) -> None:
    wire = [tagged(b"x", sequence) for sequence in sequences]
    for reference in (False, True):
        passage = road([TAG], "ingress", wire, reference=reference)
        assert passage.counted() == {"stripped": len(sequences), **counted}


@given(
    content=st.binary(max_size=80),
    identity=st.binary(min_size=1, max_size=32),
    change=st.tuples(st.integers(0, 200), st.integers(1, 255)) | st.none(),
    cut=st.integers(0, 60),
    front=st.booleans(),
)
@ANY_INPUT
def test_damaged_tags_are_judged_as_the_reference_does(
    road: Road, content: bytes, identity: bytes, change: tuple[int, int] | None, cut: int, front: bool
) -> None:
    payload = bytearray(payload_of(tagged(content, 3, identity, front=front)))
    if change:
        payload[change[0] % len(payload)] ^= change[1]
    wire = [datagram(bytes(payload[: len(payload) - cut])), datagram(bytes(payload[cut:]))]
    chain = [{**TAG, "position": "front" if front else "back", "unmarked": "drop"}]
    hot = road(chain, "ingress", wire)
    reference = road(chain, "ingress", wire, reference=True)
    assert (hot.packets, hot.counters) == (reference.packets, reference.counters)
    assert hot.engine["module_errors"] == 0
    assert all(map(is_sound, hot.packets))


@given(st.lists(st.binary(max_size=64), max_size=20), st.booleans())
@ANY_INPUT
def test_hostile_datagrams_pass_untouched(road: Road, payloads: list[bytes], front: bool) -> None:
    wire = [datagram(each + MAGIC + struct.pack("!BB", 1, 255) + bytes(8)) for each in payloads]
    passage = road([{**TAG, "position": "front" if front else "back"}], "ingress", wire)
    assert passage.packets == wire
    assert passage.counters[0]["unmarked"] == len(wire)
