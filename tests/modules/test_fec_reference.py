"""fec's wire: what leaves is what README.md says, and as many losses as a block has repairs are made good.

Each test runs on the plain Python and on the hot code; where they need not do the same, on the first.
"""

import random
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain, repeat
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.errors import Layer45Error
from layer45.modules.fec.reference import EPOCH_BLOCKS, NUMBERS, Module, id_of, payload_of, split
from tests.unit.reed_solomon_reference import encode

from .conftest import Passage, Road
from .lengths import LARGEST_PACKET_BYTES, payloads
from .wire import HEADER_BYTES, MILLISECOND, UDP, Record, datagram, is_sound

ID_BYTES, ADU_BYTES = 6, 3
LARGEST = LARGEST_PACKET_BYTES - HEADER_BYTES[4, UDP]
DEADLINE_MS = 4.5  # between any two times of a stream
PARAMETERS = {
    "source_symbols": 4,
    "repair_symbols": 2,
    "interleave": 1,
    "deadline_ms": 8,
    "short_blocks": "",
    "unmarked": "pass",
}
EXTREMES = [(1, 0), (1, 100), (155, 100), (200, 0), (200, 55)]

either = pytest.mark.parametrize("reference", [True, False], ids=["reference", "hot"])
any_input = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def fec(k: int, m: int, **more: Any) -> dict[str, Any]:
    return {"module": "fec", "source_symbols": k, "repair_symbols": m, "deadline_ms": DEADLINE_MS, **more}


@st.composite
def instances(draw: st.DrawFn, most_sources: int = 200, most_repairs: int = 100) -> dict[str, Any]:
    k = draw(st.integers(1, min(12, most_sources)) | st.integers(1, most_sources))
    m = draw(st.integers(0, 5) | st.integers(0, most_repairs))
    return fec(k, min(m, 255 - k), interleave=draw(st.integers(1, 4) | st.integers(1, 16)))


some_lengths = st.lists(st.just(0) | st.integers(0, 40) | st.integers(0, 1472), max_size=60)
some_gaps_ms = st.lists(st.sampled_from([0, 0, 0, 1, 2, 6]), max_size=60)


def stream(contents: Sequence[bytes], gaps: Iterable[int] = ()) -> list[Record]:
    """gaps: in ms, between one datagram and the next."""
    times_ms = accumulate(chain(gaps, repeat(0)), initial=1000)
    return [
        Record(datagram(each), at_ms * MILLISECOND) for each, at_ms in zip(contents, times_ms, strict=False)
    ]


def numbered(count: int) -> list[bytes]:
    return [b"%d" % at for at in range(count)]


def symbol_id(payload: bytes) -> tuple[int, int, int]:
    """SBN from the flow's first one on, ESI, k."""
    number, k = struct.unpack("!IH", payload[-ID_BYTES:])
    return (number >> 8) % EPOCH_BLOCKS, number & 255, k


def from_the_first(payload: bytes) -> bytes:
    """As it were if the flow had begun with block 0."""
    return payload[:-ID_BYTES] + id_of(*symbol_id(payload))


def blocks_of(passage: Passage) -> dict[int, list[Record]]:
    """What left, by SBN and in order of ESI. In which order it left is for the vectors."""
    blocks = defaultdict(list)
    for record in sorted(passage.records, key=lambda each: symbol_id(each.payload)):
        blocks[symbol_id(record.payload)[0]].append(record)
    return blocks


def is_repair(record: Record) -> bool:
    _, esi, k = symbol_id(record.payload)
    return esi >= k


def survivors(passage: Passage, seed: int) -> list[Record]:
    """All but at most as many of each block as it has repairs."""
    chance = random.Random(seed)
    gone = set()
    for block in blocks_of(passage).values():
        most = sum(map(is_repair, block))
        lost = chance.sample(block, chance.choice([most, chance.randint(0, most)]))
        gone.update(symbol_id(record.payload) for record in lost)
    return [record for record in passage.records if symbol_id(record.payload) not in gone]


def received(
    road: Road, instance: dict[str, Any], wire: Sequence[bytes | Record], reference: bool
) -> Passage:
    passage = road([instance], "ingress", wire, reference=reference)
    assert passage.engine["module_errors"] == 0
    assert all(map(is_sound, passage.packets))
    return passage


# --- what leaves ---


@either
@given(instance=instances(24, 12), lengths=some_lengths, gaps=some_gaps_ms)
@any_input
def test_repairs_are_those_of_rfc_5510(
    road: Road, reference: bool, instance: dict[str, Any], lengths: list[int], gaps: list[int]
) -> None:
    sent = payloads(lengths)
    out = road([instance], "egress", stream(sent, gaps), reference=reference)
    assert all(map(is_sound, out.packets))
    contents = [record.payload[:-ID_BYTES] for record in out.records if not is_repair(record)]
    assert contents == sent
    for block in blocks_of(out).values():
        sources = [each.payload[:-ID_BYTES] for each in block if not is_repair(each)]
        repairs = [each.payload for each in block if is_repair(each)]
        longest = max(map(len, sources))
        symbols = [struct.pack("!BH", 0, len(each)) + each.ljust(longest, b"\0") for each in sources]
        assert [each[:-ID_BYTES] for each in repairs] == encode(symbols, len(repairs))
        k = symbol_id(block[0].payload)[2]
        assert [symbol_id(each.payload)[1] for each in block] == list(range(len(block)))
        assert {symbol_id(each)[2] for each in repairs} <= {len(sources)}
        assert k == instance["source_symbols"]
        assert len(sources) < k or len(repairs) == instance["repair_symbols"]


@given(instance=instances(), lengths=some_lengths, gaps=some_gaps_ms)
@any_input
def test_hot_code_sends_the_bytes_of_the_reference(
    road: Road, instance: dict[str, Any], lengths: list[int], gaps: list[int]
) -> None:
    sent = stream(payloads(lengths), gaps)
    expected = list(map(from_the_first, road([instance], "egress", sent, reference=True).payloads))
    found = list(map(from_the_first, road([instance], "egress", sent).payloads))
    assert found[: len(expected)] == expected
    rest = [symbol_id(each) for each in found[len(expected) :]]  # of the last blocks, by their deadline
    assert all(esi >= k for _, esi, k in rest)


@either
def test_interleaved_blocks_take_turns_and_the_next_group_the_next_numbers(
    road: Road, reference: bool
) -> None:
    out = road([fec(2, 1, interleave=3)], "egress", stream(numbered(12)), reference=reference)
    left = [symbol_id(record.payload)[:2] for record in out.records if not is_repair(record)]
    group = [(sbn, esi) for esi in range(2) for sbn in range(3)]
    assert left == group + [(sbn + 3, esi) for sbn, esi in group]


def test_a_group_does_not_cross_the_last_number() -> None:
    module = Module({**PARAMETERS, "interleave": 3}, lambda name, more=1: None)
    found = [module.next_group({"next": NUMBERS - left}, 0).sbn for left in (4, 3, 2, 1, 0)]
    assert found == [NUMBERS - 4, NUMBERS - 3, 0, 0, 0]


@either
@pytest.mark.parametrize(
    ("k", "m", "short_blocks", "filled", "repairs"),
    [
        (10, 3, "", 1, 1), (10, 3, "", 3, 2), (10, 3, "", 4, 2), (10, 3, "", 5, 3), (10, 3, "", 9, 3),
        (4, 100, "", 3, 3), (5, 0, "", 3, 0), (200, 1, "", 1, 1),
        (49, 35, "", 36, 30), (98, 35, "", 18, 15), (196, 42, "", 81, 27),  # floating point says one more
        (10, 3, "2:1 5:2", 1, 1), (10, 3, "2:1 5:2", 2, 1), (10, 3, "2:1 5:2", 3, 2),
        (10, 3, "2:1 5:2", 5, 2), (10, 3, "2:1 5:2", 6, 3),
        (10, 3, "4:9", 4, 4), (10, 0, "4:2", 4, 2), (10, 0, "4:2", 5, 0),
    ],
)  # fmt: skip
def test_repairs_of_a_block_closed_early(
    road: Road, k: int, m: int, short_blocks: str, filled: int, repairs: int, reference: bool
) -> None:
    instance = fec(k, m, short_blocks=short_blocks)
    sent = stream(numbered(filled + 1), [0] * (filled - 1) + [6])
    out = road([instance], "egress", sent, reference=reference)
    block = blocks_of(out)[0]
    assert [symbol_id(each.payload)[1] for each in block] == list(range(filled + repairs))
    assert {symbol_id(each.payload)[2] for each in block if is_repair(each)} <= {filled}
    assert symbol_id(blocks_of(out)[1][0].payload) == (1, 0, k)


@either
def test_a_code_of_more_than_255_symbols_is_refused(road: Road, reference: bool) -> None:
    with pytest.raises(Layer45Error, match="255"):
        road([fec(200, 56)], "egress", stream([b""]), reference=reference)


@either
def test_what_leaves_is_counted(road: Road, reference: bool) -> None:
    out = road([fec(3, 2)], "egress", stream([b"", b"a", b"bcd", *numbered(3)]), reference=reference)
    assert out.counted() == {
        "sources": 6, "repairs": 4, "blocks_full": 2, "source_bytes": 7,
        "added_bytes": 6 * ID_BYTES + 2 * (3 + ADU_BYTES + ID_BYTES) + 2 * (1 + ADU_BYTES + ID_BYTES),
    }  # fmt: skip


@either
@pytest.mark.parametrize("beyond_bytes", [-3, -2, 0, 1])
def test_no_room(road: Road, reference: bool, beyond_bytes: int) -> None:
    """Of the longest datagrams some have room for an id, but not in a repair datagram for their length."""
    content = bytes(LARGEST - ID_BYTES + beyond_bytes)
    out = road([fec(1, 1)], "egress", stream([content]), reference=reference)
    if beyond_bytes == 1:
        assert (out.payloads, out.counted()) == ([content], {"no_room": 1})
        return
    repairs = [record for record in out.records if is_repair(record)]
    assert content + id_of(0, 0, 1) in map(from_the_first, out.payloads)
    assert len(repairs) == len(out.payloads) - 1 == (1 if beyond_bytes == -3 else 0)
    assert out.counters[0]["unprotected"] == (0 if beyond_bytes == -3 else 1)


# --- what arrives ---


@either
@given(instance=instances(), lengths=some_lengths, gaps=some_gaps_ms, seed=st.integers(0, 999))
@any_input
def test_as_many_losses_as_a_block_has_repairs_are_made_good(
    road: Road, reference: bool, instance: dict[str, Any], lengths: list[int], gaps: list[int], seed: int
) -> None:
    sent = payloads(lengths, seed)
    out = road([instance], "egress", stream(sent, gaps), reference=reference)
    back = received(road, instance, survivors(out, seed), reference)
    assert Counter(back.payloads) == Counter(sent)
    assert back.counters[0]["arrived"] + back.counters[0]["recovered"] == len(sent)
    assert back.counters[0]["invalid"] == 0


@either
@given(instance=instances(), lengths=some_lengths, seed=st.integers(0, 999))
@any_input
def test_in_any_order_and_twice_too(
    road: Road, reference: bool, instance: dict[str, Any], lengths: list[int], seed: int
) -> None:
    sent, chance = payloads(lengths, seed), random.Random(seed)
    out = road([instance], "egress", stream(sent), reference=reference)
    wire = [record.packet for record in survivors(out, seed)]
    first = wire[:1]  # a flow that begins with its first datagram is not in doubt
    twice = [*wire[1:], *chance.sample(wire, chance.randint(0, len(wire)))]
    chance.shuffle(twice)
    assert Counter(received(road, instance, first + twice, reference).payloads) == Counter(sent)


@either
@pytest.mark.parametrize(("k", "m"), EXTREMES)
def test_the_largest_codes(road: Road, k: int, m: int, reference: bool) -> None:
    sent = payloads([(37 * at) % 50 for at in range(2 * k)])
    out = road([fec(k, m)], "egress", stream(sent), reference=reference)
    kept = [record for block in blocks_of(out).values() for record in block[min(m, k) :]]
    back = received(road, fec(k, m), kept, reference)
    assert Counter(back.payloads) == Counter(sent)
    assert back.counted() == {
        name: count
        for name, count in {
            "arrived": 2 * max(0, k - m), "recovered": 2 * min(k, m), "repairs_arrived": 2 * m,
        }.items() if count
    }  # fmt: skip


@either
@pytest.mark.parametrize("first", range(4))
def test_with_one_loss_too_many_the_others_arrive(road: Road, first: int, reference: bool) -> None:
    lost = [first, first + 1, first + 2]
    wire = [each for at, each in enumerate(block_on_the_wire(0, numbered(4), 2)) if at not in lost]
    passage = received(road, fec(4, 2), wire + block_on_the_wire(1, numbered(4), 2), reference)
    assert passage.payloads == [b"%d" % at for at in range(4) if at not in lost] + numbered(4)


def block_on_the_wire(sbn: int, contents: Sequence[bytes], m: int) -> list[bytes]:
    """Packets, by the test's own Reed-Solomon."""
    k, longest = len(contents), max(map(len, contents))
    symbols = [struct.pack("!BH", 0, len(each)) + each.ljust(longest, b"\0") for each in contents]
    symbols = [*contents, *encode(symbols, m)]
    return [datagram(each + id_of(sbn % NUMBERS, esi, k)) for esi, each in enumerate(symbols)]


@either
def test_numbers_wrap(road: Road, reference: bool) -> None:
    """The first block comes whole: of one that it comes into the middle of, hot code recovers nothing."""
    blocks = [block_on_the_wire(sbn, [b"%d" % sbn, b"b"], 1) for sbn in range(-3, 3)]
    wire = blocks[0][:2] + [packet for block in blocks[1:] for packet in block[1:]]
    passage = received(road, fec(2, 1), wire, reference)
    others = [each for sbn in range(-2, 3) for each in (b"b", b"%d" % sbn)]
    assert passage.payloads == [b"-3", b"b", *others]


@either
@pytest.mark.parametrize(("behind", "is_open"), [(63, True), (64, False)])
def test_the_window_is_64_blocks(road: Road, reference: bool, behind: int, is_open: bool) -> None:
    blocks = [block_on_the_wire(sbn, [b"a%d" % sbn, b"b%d" % sbn], 1) for sbn in range(behind + 1)]
    wire = [blocks[0][1], *(packet for block in blocks[1:] for packet in block[:2]), blocks[0][2]]
    passage = received(road, fec(2, 1), wire, reference)
    assert (b"a0" in passage.payloads) == is_open
    assert len(passage.payloads) == 2 * behind + 1 + is_open


@either
def test_what_arrives_is_counted(road: Road, reference: bool) -> None:
    first, second, short = (block_on_the_wire(sbn, numbered(4)[sbn:], 2) for sbn in range(3))
    wire = [*first[1:], first[2], first[0], *second[:2], *second[3:], short[0], datagram(b"x")]
    passage = received(road, fec(4, 2), wire, reference)
    assert passage.counted() == {
        "arrived": 3 + 2 + 1, "recovered": 2, "repairs_arrived": 4, "duplicate": 2,
        "other_parameters": 2, "unmarked": 1,
    }  # fmt: skip


contradictions = {  # behind how many datagrams of the block, and whether it is delivered
    "a repair of a larger block": (1, datagram(bytes(4) + id_of(0, 4, 4)), False),
    "a repair shorter than a source": (1, datagram(bytes(3) + id_of(0, 3, 3)), False),
    "a source of another k": (1, datagram(b"x" + id_of(0, 2, 5)), True),
    "a source that the block does not have": (2, datagram(b"x" + id_of(0, 3, 4)), True),
    "a source longer than the symbols": (2, datagram(b"longer" + id_of(0, 2, 3)), True),
    "a repair of another length": (2, datagram(bytes(9) + id_of(0, 4, 3)), False),
    "a repair of another k": (2, datagram(bytes(4) + id_of(0, 4, 2)), False),
}


@pytest.mark.parametrize("name", contradictions)
def test_what_contradicts_its_block_is_not_used(road: Road, name: str) -> None:
    """The reference's way: a source datagram is delivered all the same."""
    block = block_on_the_wire(0, [b"a", b"b", b"c"], 2)
    behind, packet, delivered = contradictions[name]
    wire = [block[0], block[3], block[4]]
    wire.insert(behind, packet)
    passage = received(road, fec(3, 2), wire, reference=True)
    assert len(passage.payloads) == 3 + delivered
    assert {b"a", b"b", b"c"} <= set(passage.payloads)
    assert passage.counters[0]["invalid"] == 1


@either
def test_what_stays_lost_is_counted_when_the_block_is_over(road: Road, reference: bool) -> None:
    blocks = [block_on_the_wire(sbn, numbered(4), 2) for sbn in (0, 1, 33, 64, 65)]
    wire = [blocks[0][0], *blocks[0][4:], *(packet for block in blocks[1:] for packet in block)]
    passage = received(road, fec(4, 2), wire, reference)
    assert passage.payloads == [b"0", *4 * numbered(4)]
    assert passage.counters[0]["unrecovered"] == 3


ids = st.builds(id_of, st.integers(0, 3), st.integers(0, 255), st.integers(0, 3) | st.integers(0, 65535))
hostile = st.lists(st.builds(bytes.__add__, st.binary(max_size=12), ids | st.just(b"")), max_size=40)


@either
@given(hostile)
@any_input
def test_hostile_datagrams_change_counters_and_nothing_else(
    road: Road, reference: bool, contents: list[bytes]
) -> None:
    passage = received(road, fec(2, 2, unmarked="drop"), list(map(datagram, contents)), reference)
    counted = passage.counters[0]
    assert len(passage.payloads) == counted["arrived"] + counted["recovered"]
    without_id = sum(split(each) is None for each in contents)
    assert counted["unmarked"] == without_id if reference else counted["unmarked"] >= without_id


symbols = st.builds(
    lambda flow_id, length, rest: struct.pack("!BH", flow_id, length) + rest,
    st.just(0) | st.integers(0, 255),
    st.integers(0, 8) | st.integers(0, 65535),
    st.builds(bytes.__add__, st.binary(max_size=6), st.sampled_from([b"", b"\0", b"\0\0"])),
)


@given(symbols)
def test_a_source_symbol_is_checked_as_a_whole(symbol: bytes) -> None:
    flow_id, length = struct.unpack_from("!BH", symbol)
    payload, rest = symbol[ADU_BYTES:][:length], symbol[ADU_BYTES + length :]
    good = flow_id == 0 and length <= len(symbol) - ADU_BYTES and rest == bytes(len(rest))
    assert payload_of(symbol) == (payload if good else None)
