"""scramble: lengths stay, bytes come back, sums stay true; TCP gives the same bytes however it is cut."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Passage, Road
from .lengths import EVERY_LENGTH, datagrams, payloads
from .wire import ACK, SYN, datagram, is_sound, segment

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


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_round_trip_for_every_length(there_and_back: Travel, version: int) -> None:
    positions = random.Random(1)
    contents = payloads([each for each in EVERY_LENGTH if each < 65000])
    sent = [segment(each, positions.getrandbits(32), version) for each in contents]
    out, back = there_and_back([SCRAMBLE], sent, protocol="tcp")
    assert back.packets == sent
    assert all(map(is_sound, out.packets))
    assert out.packets == there_and_back([SCRAMBLE], sent, protocol="tcp", reference=True)[0].packets


cuts = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 1500)), max_size=12)


@given(content=st.binary(min_size=1, max_size=3000), start=st.integers(0, (1 << 32) - 1), pieces=cuts)
@ANY_INPUT
def test_tcp_gives_the_same_bytes_however_it_is_cut(
    road: Road, content: bytes, start: int, pieces: list[tuple[int, int]]
) -> None:
    """Retransmissions with any bounds, in any order, are as the first transmission; also over the wrap."""
    for first in (start, (1 << 32) - len(content) // 2):
        whole = segment(content, first)
        bounds = [(at % len(content), at % len(content) + count) for at, count in pieces]
        parts = [segment(content[at:end], first + at) for at, end in bounds]
        passage = road([SCRAMBLE], "egress", [whole, *parts], protocol="tcp")
        stream = passage.payloads[0]
        assert passage.payloads[1:] == [stream[at:end] for at, end in bounds]
        assert all(map(is_sound, passage.packets))


def test_data_on_a_syn_stands_at_the_next_number(road: Road) -> None:
    """TCP Fast Open: the SYN takes one number, and a retransmission without SYN begins behind it."""
    sent = [segment(b"early data", 100, flags=SYN), segment(b"early data", 101, flags=ACK)]
    for reference in (False, True):
        first, again = road([SCRAMBLE], "egress", sent, protocol="tcp", reference=reference).payloads
        assert first == again != b"early data"


def test_segments_without_data_pass_untouched(road: Road) -> None:
    sent = [segment(b"", 7), segment(b"", 8, flags=SYN)]
    passage = road([SCRAMBLE], "egress", sent, protocol="tcp")
    assert passage.packets == sent
    assert passage.engine["passed"] == 2
    assert passage.counted() == {}


def test_another_key_does_not_bring_it_back(road: Road) -> None:
    sent = [datagram(each) for each in payloads(list(range(8, 200)))]
    out = road([SCRAMBLE], "egress", sent).packets
    for key in ("hex:2b7e151628aed2a6abf7158809cf4f3d", "hex:2b7e151628aed2a6abf7158809cf4f3c00"):
        back = road([{**SCRAMBLE, "key": key}], "ingress", out)
        assert not set(back.packets) & set(sent)


def test_zeros_look_like_noise(road: Road) -> None:
    """No proof of anything: every bit is set about half of the time, and no word comes twice."""
    chains = [([SCRAMBLE], "udp", datagram(bytes(32768))), ([SCRAMBLE], "tcp", segment(bytes(32768), 5))]
    for chain, protocol, packet in chains:
        noise = road(chain, "egress", [packet], protocol=protocol).payloads[0]
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
