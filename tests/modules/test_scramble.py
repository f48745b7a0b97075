"""scramble: lengths stay, bytes come back, sums stay true. TCP: test_scramble_stream.py."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Passage, Road
from .lengths import datagrams, payloads
from .wire import datagram, is_sound

Travel = Callable[..., tuple[Passage, Passage]]
KEY = "hex:2b7e151628aed2a6abf7158809cf4f3c"
SCRAMBLE = {"module": "scramble", "key": KEY}
CHAINS = {
    "content": [SCRAMBLE],
    "sequence": [{**SCRAMBLE, "nonce": "sequence"}, {"module": "tag", "id": "x"}],
}
ANY_INPUT = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("nonce", CHAINS)
def test_round_trip_for_every_length(there_and_back: Travel, version: int, nonce: str) -> None:
    sent = datagrams(version, 13)
    out, back = there_and_back(CHAINS[nonce], sent)
    assert back.packets == sent
    assert all(map(is_sound, out.packets))
    if nonce == "content":
        assert list(map(len, out.packets)) == list(map(len, sent))
    assert out.counted() == {"scrambled": len(sent) - 1}
    assert back.counted() == {"unscrambled": len(sent) - 1}


@pytest.mark.parametrize("nonce", CHAINS)
def test_reference_does_the_same(road: Road, nonce: str) -> None:
    sent = datagrams(4, 13) + datagrams(6, 13)[::7]
    hot = road(CHAINS[nonce], "egress", sent)
    assert road(CHAINS[nonce], "egress", sent, reference=True).packets == hot.packets
    assert road(CHAINS[nonce], "ingress", hot.packets, reference=True).packets == sent


def test_another_key_does_not_bring_it_back(road: Road) -> None:
    sent = [datagram(each) for each in payloads(list(range(8, 200)))]
    out = road([SCRAMBLE], "egress", sent).packets
    for key in ("hex:2b7e151628aed2a6abf7158809cf4f3d", "hex:2b7e151628aed2a6abf7158809cf4f3c00"):
        back = road([{**SCRAMBLE, "key": key}], "ingress", out)
        assert not set(back.packets) & set(sent)


def test_zeros_look_like_noise(road: Road) -> None:
    """No proof of anything: every bit is set about half of the time, and no word comes twice."""
    noise = road([SCRAMBLE], "egress", [datagram(bytes(32768))]).payloads[0]
    for bit in range(8):
        assert 0.47 < sum(byte >> bit & 1 for byte in noise) / len(noise) < 0.53
    words = Counter(noise[at : at + 8] for at in range(0, len(noise), 8))
    assert max(words.values()) == 1


@given(content=st.binary(min_size=16, max_size=200), at=st.integers(0, 10_000), bit=st.integers(0, 7))
@ANY_INPUT
def test_one_changed_bit_changes_the_datagram(road: Road, content: bytes, at: int, bit: int) -> None:
    """In content mode, when it is in the long part: the digest and with it the keystream are others."""
    other = bytearray(content)
    other[8 + at % (len(content) - 8)] ^= 1 << bit
    one, two = road([SCRAMBLE], "egress", [datagram(content), datagram(bytes(other))]).payloads
    assert one[:8] != two[:8]
    assert sum(left == right for left, right in zip(one, two, strict=True)) < len(content) // 2


@given(st.lists(st.binary(max_size=100), max_size=20))
@ANY_INPUT
def test_hostile_datagrams_are_changed_and_nothing_else(road: Road, contents: list[bytes]) -> None:
    wire = [datagram(each) for each in contents]
    passage = road([SCRAMBLE], "ingress", wire)
    assert [len(each) for each in passage.payloads] == [len(each) for each in contents]
    assert all(map(is_sound, passage.packets))
    assert road([SCRAMBLE], "egress", passage.packets).packets == wire


def test_a_wrong_checksum_stays_wrong(road: Road) -> None:
    """Corruption on the way must not be hidden by a new sum."""
    damaged = bytearray(datagram(b"payload of the datagram"))
    damaged[-1] ^= 1
    passage = road([SCRAMBLE], "ingress", [bytes(damaged)])
    assert not is_sound(passage.packets[0])
