"""mark: the code point of exactly the packets that it selects is another, and nothing else of them."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.errors import ConfigError
from layer45.fastpath.chain import Chain, ClassTable, InstanceSpec
from layer45.fastpath.worker import Worker
from layer45.modules.mark import mark

from .conftest import Entry, Passage, Road
from .lengths import datagrams
from .wire import datagram, field_of, is_sound, options_of, payload_of, segment, with_field

PAYLOADS = [b"", b"a", b"ab", b"abc", b"b", b"ba", b"abcd" * 300]
PASS, TRUNCATED = 1, 32  # of abi.h
EF = {"module": "mark", "dscp": "EF"}
# RFC 2474, 2597, 3246, 5865 and 8622, as they write them: in binary.
NAMES = {
    **{f"CS{each}": f"{each:03b}000" for each in range(8)},
    "AF11": "001010", "AF12": "001100", "AF13": "001110",
    "AF21": "010010", "AF22": "010100", "AF23": "010110",
    "AF31": "011010", "AF32": "011100", "AF33": "011110",
    "AF41": "100010", "AF42": "100100", "AF43": "100110",
    "EF": "101110", "VA": "101100", "LE": "000001",
}  # fmt: skip


def marked(packet: bytes, dscp: int) -> bytes:
    """The same, with another code point, made by hand."""
    return with_field(packet, dscp << 2 | field_of(packet) & 3)


def both(road: Road, chain: list[Entry], direction: str, sent: list[bytes], **keys: Any) -> Passage:
    """What comes out, the same from hot code and reference."""
    hot = road(chain, direction, sent, **keys)
    reference = road(chain, direction, sent, reference=True, **keys)
    assert (hot.packets, hot.counters) == (reference.packets, reference.counters)
    assert all(map(is_sound, hot.packets))
    return hot


@pytest.mark.parametrize("version", [4, 6])
def test_every_name_is_what_the_standards_say_and_ecn_stays(road: Road, version: int) -> None:
    sent = [with_field(datagram(b"x", version), field) for field in range(256)]
    for name, bits in NAMES.items():
        passage = road([{"module": "mark", "dscp": name}], "egress", sent)
        assert passage.packets == [marked(each, int(bits, 2)) for each in sent]
        assert passage.counted() == {"selected": 256, "marked": 252}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_every_number(road: Road, version: int, direction: str) -> None:
    sent = [with_field(datagram(b"x", version), field) for field in (0, 3, 0xB9, 0xFE)]
    for dscp in range(0, 64, 7):
        passage = both(road, [{"module": "mark", "dscp": dscp}], direction, sent)
        assert passage.packets == [marked(each, dscp) for each in sent]


@pytest.mark.parametrize("version", [4, 6])
def test_every_length(road: Road, version: int) -> None:
    sent = datagrams(version)
    passage = road([{**EF, "length": "100-1000", "invert": True}], "egress", sent)
    chosen = [each for each in sent if not 100 <= len(payload_of(each)) <= 1000]
    assert passage.packets == [marked(each, 46) if each in chosen else each for each in sent]
    assert passage.counted() == {"selected": len(chosen), "marked": len(chosen)}


@pytest.mark.parametrize(
    ("entry", "chosen"),
    [
        ({}, PAYLOADS),
        ({"prefix": "ab"}, [b"ab", b"abc", b"abcd" * 300]),
        ({"prefix": "ab", "invert": True}, [b"", b"a", b"b", b"ba"]),
        ({"length": "1-2"}, [b"a", b"ab", b"b", b"ba"]),
        ({"prefix": "a", "length": "2-3"}, [b"ab", b"abc"]),
    ],
)
def test_predicates(road: Road, entry: Entry, chosen: list[bytes]) -> None:
    passage = both(road, [{**EF, **entry}], "egress", [datagram(each) for each in PAYLOADS])
    assert [each for each in passage.packets if field_of(each)] == [
        marked(datagram(each), 46) for each in chosen
    ]


def test_the_last_one_has_its_way(road: Road) -> None:
    """Egress in the chain's order, ingress backwards; what drop took is marked no more."""
    chain = [{"module": "mark", "dscp": 1}, {"module": "drop", "prefix": "x"}, {**EF, "prefix": "a"}]
    sent = [datagram(each) for each in (b"a", b"b", b"x")]
    out, back = both(road, chain, "egress", sent), both(road, chain, "ingress", sent)
    assert out.packets == [marked(sent[0], 46), marked(sent[1], 1)]
    assert back.packets == [marked(sent[0], 1), marked(sent[1], 1)]
    assert [out.counted(at) for at in (0, 2)] == [{"selected": 3, "marked": 3}, {"selected": 1, "marked": 1}]
    assert [back.counted(at) for at in (0, 2)] == [{"selected": 2, "marked": 2}, {"selected": 1, "marked": 1}]


def test_direction_restricts_it(road: Road) -> None:
    sent = [datagram(b"x")]
    assert road([{**EF, "direction": "egress"}], "ingress", sent).packets == sent


@pytest.mark.parametrize("version", [4, 6])
def test_segments_with_options(road: Road, version: int) -> None:
    sent = [segment(b"", 0, version, options=b"\x01" * 12), segment(b"data", 0, version)]
    passage = both(road, [{**EF, "length": "1-"}], "egress", sent, protocol="tcp")
    assert passage.packets == [sent[0], marked(sent[1], 46)]
    assert options_of(passage.packets[0]) == b"\x01" * 12


def test_a_corrupt_datagram_stays_corrupt_by_as_much(road: Road) -> None:
    whole = datagram(b"payload")
    corrupt = whole[:-1] + bytes([whole[-1] ^ 4])
    assert road([EF], "egress", [corrupt]).packets == [marked(corrupt, 46)]


def test_beside_modules_that_change_and_add(road: Road, there_and_back: Any) -> None:
    """What fec adds goes through mark behind it; a mark in front is kept by what is behind."""
    sent = [datagram(bytes([at]) * (at + 1)) for at in range(40)]
    chain = [{"module": "tag", "id": "x"}, {"module": "fec", "source_symbols": 10, "repair_symbols": 4}]
    out, back = there_and_back([*chain, EF], sent)
    assert len(out.packets) > 40 and all(map(is_sound, out.packets))
    assert {field_of(each) for each in out.packets} == {46 << 2}
    assert back.packets == [marked(each, 46) for each in sent]
    first = road([EF, *chain], "egress", sent).packets
    assert sum(field_of(each) == 46 << 2 for each in first) == 40


def test_what_is_copied_in_part_goes_on_as_it_came(driver: Any) -> None:
    """A verdict with what we have of it would cut it off. So the loader asks for whole packets."""
    specs = [InstanceSpec("mark", mark.ops, (("dscp", 46), ("length", (0, 65535))), ("selected", "marked"))]
    sent = datagram(b"payload" * 9)[:40]
    for whole, counter in ((True, "truncated"), (False, "module_errors")):
        worker = Worker()
        chain = Chain(1, "test", specs, whole_payload=whole)
        worker.publish(ClassTable([chain]))
        driven = driver.Driver(worker)
        driven.rest()
        assert driven.process(sent, flags=TRUNCATED) == (PASS, sent)
        assert worker.counters()[counter] == 1
        assert chain.counters()["instances"][0]["counters"] == {"selected": 0, "marked": 0}
        driven.close()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("ef", 'got "ef", did you mean "EF"?'),
        ("AF14", 'got "AF14", did you mean "AF'),
        (64, "got 64"),
        (-1, "got -1"),
        (True, "got true"),
        ("46", 'got "46"'),
    ],
)
def test_a_wrong_code_point_is_one_line(road: Road, value: object, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        road([{"module": "mark", "dscp": value}], "egress", [datagram(b"x")])
    (problem,) = raised.value.problems
    assert 'test.toml:3: policy.test.chain[0].dscp: expected integer 0..63 or "CS0" "CS1"' in problem
    assert told in problem and "\n" not in problem


entries = st.fixed_dictionaries(
    {"module": st.just("mark"), "dscp": st.sampled_from([*NAMES, 0, 1, 46, 63])},
    optional={
        "prefix": st.sampled_from(["", "a", "ab"]),
        "length": st.sampled_from(["0-3", "2-", 1]),
        "invert": st.booleans(),
        "direction": st.sampled_from(["egress", "ingress"]),
    },
)
packets = st.tuples(st.sampled_from(PAYLOADS), st.integers(0, 255), st.sampled_from([4, 6]))


@given(
    chain=st.lists(entries, min_size=1, max_size=4),
    direction=st.sampled_from(["egress", "ingress"]),
    sent=st.lists(packets, max_size=20),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reference_does_the_same(
    road: Road, chain: list[Entry], direction: str, sent: list[tuple[bytes, int, int]]
) -> None:
    """And nothing but the code point is another."""
    made = [with_field(datagram(payload, version), field) for payload, field, version in sent]
    came = both(road, chain, direction, made).packets
    assert [marked(each, 0) for each in came] == [marked(each, 0) for each in made]
