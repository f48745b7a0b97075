"""Modules together: whatever chain of them the loader accepts, the receiver gets what the sender sent."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Passage, Road
from .lengths import payloads
from .wire import datagram, is_sound, payload_of, unnumbered

Travel = Callable[..., tuple[Passage, Passage]]
KEYS = ["sixteen bytes it is", "hex:000102030405060708090a0b0c0d0e0f10"]

compress = st.builds(lambda level: {"module": "example_python", "level": level}, st.integers(1, 9))
tag = st.builds(
    lambda name, position: {"module": "tag", "id": name, "position": position, "unmarked": "drop"},
    st.text("abc", min_size=1, max_size=32),
    st.sampled_from(["back", "front"]),
)
duplicate = st.builds(
    lambda copies, spacing_ms: {"module": "duplicate", "copies": copies, "spacing_ms": spacing_ms},
    st.integers(2, 4),
    st.sampled_from([0, 0.001, 3]),
)
scramble = st.builds(lambda key: {"module": "scramble", "key": key}, st.sampled_from(KEYS))
dropless = st.just({"module": "drop", "length": 65535})
fec = st.builds(
    lambda k, m, interleave: {
        "module": "fec",
        "source_symbols": k,
        "repair_symbols": m,
        "interleave": interleave,
        "unmarked": "drop",
    },
    st.integers(1, 12),
    st.integers(0, 6),
    st.integers(1, 4),
)
chains = st.tuples(
    st.lists(compress | tag | fec | dropless, max_size=2),
    st.lists(scramble | tag | duplicate | fec | dropless, max_size=4),
).map(lambda parts: parts[0] + parts[1])


@pytest.mark.parametrize("version", [4, 6])
@given(chain=chains, lengths=st.lists(st.integers(0, 1472), max_size=20), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_chain_comes_undone(
    there_and_back: Travel, version: int, chain: list[dict[str, Any]], lengths: list[int], seed: int
) -> None:
    sent = [datagram(each, version) for each in payloads(lengths, seed)]
    out, back = there_and_back(chain, sent)
    assert all(map(is_sound, out.packets))
    assert list(map(unnumbered, back.packets)) == list(map(unnumbered, sent))
    assert back.engine["module_errors"] == out.engine["module_errors"] == 0


def test_sequence_nonce_with_copies_and_any_order(road: Road) -> None:
    """The number that tag carries reaches scramble on the other side, also for late datagrams."""
    chain = [
        {"module": "scramble", "key": KEYS[0], "nonce": "sequence"},
        {"module": "tag", "id": "x"},
        {"module": "duplicate", "copies": 2},
    ]
    sent = [datagram(each) for each in payloads(list(range(200)))]
    out = road(chain, "egress", sent).packets
    back = road(chain, "ingress", out[::-1])
    assert list(map(unnumbered, back.packets)) == list(map(unnumbered, sent[::-1]))


@pytest.mark.parametrize("module", ["tag", "scramble", "duplicate", "example_python", "fec"])
def test_a_datagram_without_checksum_stays_without(there_and_back: Travel, module: str) -> None:
    """UDP over IPv4 may leave its checksum out (RFC 768): 0."""
    needs = {"tag": {"id": "x"}, "scramble": {"key": KEYS[0]}}
    packet = datagram(b"odd payload")
    packet = packet[:26] + b"\0\0" + packet[28:]
    out, back = there_and_back([{"module": module, **needs.get(module, {})}], [packet])
    assert {each[26:28] for each in out.packets[:1]} == {b"\0\0"}  # others a module has made
    assert list(map(unnumbered, back.packets)) == [unnumbered(packet)]


# --- fec among others, over a path that loses -------------------------------------------------

FEC = {"module": "fec", "source_symbols": 10, "repair_symbols": 4, "unmarked": "drop"}
TAG = {"module": "tag", "id": "x", "unmarked": "drop"}
FRONT = {"module": "tag", "id": "front", "position": "front", "unmarked": "drop"}
SCRAMBLE = {"module": "scramble", "key": KEYS[0]}
SEQUENCE = {"module": "scramble", "key": KEYS[0], "nonce": "sequence"}
DUPLICATE = {"module": "duplicate", "copies": 2, "unmarked": "drop"}
COMPRESS = {"module": "example_python"}
IMPAIR = {"module": "impair", "seed": 7, "direction": "egress"}
LOSSY = {
    "tag behind": [FEC, TAG],
    "tag in front": [TAG, FEC],
    "tags around": [FRONT, FEC, TAG],
    "scrambled behind": [FEC, SCRAMBLE],
    "scrambled in front": [SCRAMBLE, FEC],
    "numbered in front": [SEQUENCE, TAG, FEC],
    "numbered behind": [FEC, SEQUENCE, TAG],
    "doubled in front": [DUPLICATE, FEC],
    "doubled behind": [FEC, DUPLICATE],
    "compressed": [COMPRESS, FEC, SCRAMBLE],
    "twice": [FEC, {**FEC, "source_symbols": 20}],
    "all": [COMPRESS, FRONT, SEQUENCE, TAG, FEC, SCRAMBLE, TAG, DUPLICATE],
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", LOSSY)
def test_fec_among_others_makes_up_for_losses(there_and_back: Travel, name: str, version: int) -> None:
    """What is lost behind the whole chain comes back as it was sent, in front of it: content, not order."""
    sent = [datagram(each, version) for each in payloads([at * 13 % 1300 for at in range(400)], 45)]
    loss_percent = 20 if LOSSY[name][-1] is DUPLICATE else 5
    out, back = there_and_back([*LOSSY[name], {**IMPAIR, "loss_percent": loss_percent}], sent)
    assert out.counters[-1]["lost"] > 20
    assert all(map(is_sound, back.packets))
    assert back.counters[LOSSY[name].index(FEC)]["recovered"] > 0
    assert sorted(back.payloads) == sorted(payload_of(each) for each in sent)
    for each in back.counters:
        assert not {
            key: each[key] for key in ("unmarked", "invalid", "stale", "bad_version") if each.get(key)
        }
