"""fec's ids have no magic number: what is taken for a numbering, when, and what becomes of all else."""

import random
import struct
from typing import Any

import pytest

from .conftest import Passage, Road
from .wire import MILLISECOND, Record, datagram

MOST_HELD_MS = 30


def fec(k: int = 5, m: int = 2, **more: Any) -> dict[str, Any]:
    return {"module": "fec", "source_symbols": k, "repair_symbols": m, **more}


def stream(contents: list[bytes], begin_ms: float = 1000, spacing_ms: float = 1) -> list[Record]:
    return [
        Record(datagram(each), int((begin_ms + at * spacing_ms) * MILLISECOND))
        for at, each in enumerate(contents)
    ]


def numbered(first: int, count: int) -> list[bytes]:
    return [b"datagram %d" % (first + at) for at in range(count)]


def sent(
    road: Road, contents: list[bytes], seed: int = 1, begin_ms: float = 1000, **more: Any
) -> list[Record]:
    return road([fec(**more)], "egress", stream(contents, begin_ms), seed=seed).records


def trailer(sbn: int, esi: int, k: int) -> bytes:
    return struct.pack("!IH", sbn << 8 | esi, k)


def latest_ms(passage: Passage, wire: list[Record]) -> float:
    return max(
        (after.time_ns - before.time_ns) / MILLISECOND
        for before, after in zip(wire, passage.records, strict=True)
    )


@pytest.mark.parametrize("before", [1, 4, 23, 400])
@pytest.mark.parametrize("after", [1, 2, 100])
def test_a_peer_that_begins_anew_is_understood(road: Road, before: int, after: int) -> None:
    first = sent(road, numbered(0, before), seed=1)
    second = sent(road, numbered(before, after), seed=2, begin_ms=2000)
    back = road([fec()], "ingress", first + second)
    assert sorted(back.payloads) == sorted(numbered(0, before + after))
    assert back.counters[0]["restarts"] == 1
    assert back.counters[0]["stale"] == back.counters[0]["unmarked"] == 0


def test_stragglers_of_the_old_numbering_do_no_harm(road: Road) -> None:
    first = sent(road, numbered(0, 50), seed=1)
    second = sent(road, numbered(50, 50), seed=2, begin_ms=2000)
    mixed = [*first[:-9], *second[:1], *first[-9:-4], *second[1:2], *first[-4:], *second[2:]]
    wire = [Record(each.packet, 10**9 + at * MILLISECOND) for at, each in enumerate(mixed)]
    back = road([fec()], "ingress", wire)
    assert len(set(back.payloads)) == len(back.payloads)
    assert sorted(back.payloads) == sorted(numbered(0, 100))
    assert back.counters[0]["restarts"] == 1
    assert all(each.startswith(b"datagram") and len(each) < 14 for each in back.payloads)


@pytest.mark.parametrize("flushed_ms", [0.5, 5.5, 20.5, 28.5])
def test_plain_datagrams_behind_a_peer_that_stops_pass(road: Road, flushed_ms: float) -> None:
    """The first of them ends like an id of elsewhere, and the repairs of the last block come among them."""
    wire = sent(road, numbered(0, 52))
    ours = [each for each in wire if each.payload[:8] == b"datagram"]
    last = [Record(each.packet, int((1052 + flushed_ms) * MILLISECOND)) for each in wire[-2:]]
    assert len(ours) == 52 and not any(each in ours for each in wire[-2:])
    plain = stream([b"plain and like an id" + trailer(0xEE7B85, 2, 141), *numbered(900, 60)], 1052)
    back = road([fec()], "ingress", sorted([*wire[:-2], *last, *plain], key=lambda each: each.time_ns))
    assert sorted(back.payloads) == sorted([*numbered(0, 52), *(each.payload for each in plain)])
    assert back.counters[0]["stale"] == 0


@pytest.mark.parametrize("missed", [1, 7, 8, 500])
def test_a_receiver_that_comes_in_the_middle(road: Road, missed: int) -> None:
    """It has not seen the beginning: the first datagram waits for the second one, no more."""
    wire = sent(road, numbered(0, 1000))[missed:]
    back = road([fec()], "ingress", wire)
    sources = [each.payload[:-6] for each in wire if each.payload[-3] < 5]
    assert sorted(back.payloads)[: len(sources)] == sorted({*sources, *back.payloads})[: len(sources)]
    assert set(back.payloads) >= set(sources)
    assert set(back.payloads) <= set(numbered(0, 1000))
    assert back.counters[0]["unmarked"] == 0


@pytest.mark.parametrize(("k", "m"), [(4, 2), (20, 4), (1, 1), (200, 55)])
def test_a_peer_with_another_code_is_understood(road: Road, k: int, m: int) -> None:
    wire = sent(road, numbered(0, 300), k=k, m=m)
    back = road([fec()], "ingress", [each for at, each in enumerate(wire) if at != 2])
    assert sorted(back.payloads) == sorted(numbered(0, 300))
    assert back.counters[0]["other_parameters"] > 0


def test_other_traffic_passes(road: Road) -> None:
    chance = random.Random(45)
    wire = stream([chance.randbytes(chance.randrange(40)) for _ in range(5000)])
    back = road([fec()], "ingress", wire)
    assert sorted(back.payloads) == sorted(each.payload for each in wire)
    assert back.counters[0]["unmarked"] == 5000


@pytest.mark.parametrize("kind", [1, 28, 15, 255])
def test_dns_queries_pass_at_once(road: Road, kind: int) -> None:
    """They end in 0, type, class: an id of a block of one, if one is not careful."""
    query = b"\1\0\0\1\0\0\0\0\0\0\7example\3com\0" + struct.pack("!HH", kind, 1)
    wire = stream([struct.pack("!H", at) + query for at in range(100)])
    back = road([fec()], "ingress", wire)
    assert back.packets == [each.packet for each in wire]
    assert latest_ms(back, wire) == 0


@pytest.mark.parametrize("ending", [trailer(77, 3, 5), trailer(0, 0, 9), trailer(4096, 2, 200)])
@pytest.mark.parametrize("spacing_ms", [1, 100])
def test_what_always_ends_like_an_id_passes_too(road: Road, ending: bytes, spacing_ms: int) -> None:
    """Held one after the other in the beginning, each until the next one or for a little, then no more."""
    wire = stream([b"%d" % at + ending for at in range(200)], spacing_ms=spacing_ms)
    back = road([fec()], "ingress", wire)
    assert back.packets == [each.packet for each in wire]
    assert latest_ms(back, wire) <= MOST_HELD_MS
    assert latest_ms(Passage(back.records[20:], [], {}, {}), wire[20:]) == 0


def test_a_replay_from_long_ago_is_not_delivered(road: Road) -> None:
    wire = sent(road, numbered(0, 1000))
    old = [each for each in wire[:300] if each.payload[-3] < 5][:40:7]
    mixed = wire[:1200]
    for at, each in enumerate(old):
        mixed.insert(700 + 50 * at, each)
    mixed = [Record(each.packet, 10**9 + at * MILLISECOND) for at, each in enumerate(mixed)]
    back = road([fec()], "ingress", mixed)
    assert len(set(back.payloads)) == len(back.payloads)
    assert back.counters[0]["stale"] + back.counters[0]["duplicate"] >= len(old)
    assert back.counters[0]["restarts"] == 0
    assert set(back.payloads) >= {each.payload[:-6] for each in wire[:1200] if each.payload[-3] < 5}


def test_a_forged_number_far_ahead_moves_nothing(road: Road) -> None:
    wire = sent(road, numbered(0, 500))
    first = int.from_bytes(wire[0].payload[-6:-3], "big")
    forged = [
        Record(datagram(b"forged" + trailer((first + 10_000 * at) % (1 << 24), 0, 5)), wire[50 * at].time_ns)
        for at in range(1, 9)
    ]
    mixed = sorted([*wire, *forged], key=lambda each: each.time_ns)
    back = road([fec()], "ingress", mixed)
    assert [each for each in back.payloads if each != b"forged"] == numbered(0, 500)
    assert back.counters[0]["restarts"] == 0


def test_a_numbering_taken_by_mistake_is_forgotten(road: Road) -> None:
    wire = stream([b"a counter" + trailer(0, 0, 5), *(b"plain text %d" % at for at in range(60))])
    wire += sent(road, numbered(0, 50), begin_ms=2000)
    back = road([fec()], "ingress", wire)
    assert back.payloads[0] == b"a counter"
    assert back.payloads[1:61] == [each.payload for each in wire[1:61]]
    assert back.payloads[61:] == numbered(0, 50)


# --- strangers in between ---

BLOCK = 7  # the datagrams of a block, of which two are repairs
BLOCKS = 20  # more than a flow's beginning, which is believed by itself
MANY = [16, 300]  # strangers in a row: from 16 on, no numbering is thought to be in use
EARLIEST, LATEST = BLOCKS - 64, BLOCKS - 1 + 32  # the blocks near the window


def block(wire: list[Record], number: int) -> list[bytes]:
    return [each.payload for each in wire[number * BLOCK : (number + 1) * BLOCK]]


def strangers(count: int) -> list[bytes]:
    return [b"of no numbering, %d" % at for at in range(count)]


def shifted(payload: bytes, blocks: int) -> bytes:
    """Of a block so many ahead."""
    number = int.from_bytes(payload[-6:-3], "big") + blocks
    return payload[:-6] + (number % (1 << 24)).to_bytes(3, "big") + payload[-3:]


@pytest.mark.parametrize("kept", [0, 4], ids=["of a block that is lost", "of one that lacks a datagram"])
@pytest.mark.parametrize("count", MANY)
def test_a_lone_repair_behind_strangers_reaches_no_program(road: Road, count: int, kept: int) -> None:
    wire = sent(road, numbered(0, 5 * BLOCKS + 5))
    *sources, repair, _ = block(wire, BLOCKS)
    before = [each.payload for each in wire[: BLOCKS * BLOCK]] + sources[:kept]
    back = road([fec(give_up_ms=1000)], "ingress", stream([*before, *strangers(count), repair]))
    delivered = 5 * BLOCKS + (5 if kept == 4 else 0)
    assert sorted(back.payloads) == sorted(numbered(0, delivered) + strangers(count))
    assert back.counters[0]["unmarked"] == count
    assert back.counters[0]["recovered"] == (1 if kept == 4 else 0)


@pytest.mark.parametrize("at", [EARLIEST, BLOCKS - 1, BLOCKS, LATEST])
@pytest.mark.parametrize("count", MANY)
def test_a_lone_repair_anywhere_near_the_window(road: Road, count: int, at: int) -> None:
    wire = sent(road, numbered(0, 5 * BLOCKS + 5))
    before = [each.payload for each in wire[: BLOCKS * BLOCK]]
    repair = shifted(block(wire, BLOCKS)[-1], at - BLOCKS)
    back = road([fec()], "ingress", stream([*before, *strangers(count), repair]))
    assert back.payloads == numbered(0, 5 * BLOCKS) + strangers(count)
    assert back.counters[0]["unmarked"] == count
    assert back.counters[0]["stale"] == 0


@pytest.mark.parametrize("unmarked", ["pass", "drop"])
@pytest.mark.parametrize("at", [EARLIEST, BLOCKS, LATEST])
@pytest.mark.parametrize("count", MANY)
def test_a_lone_source_behind_strangers_is_delivered_bare(
    road: Road, count: int, at: int, unmarked: str
) -> None:
    """At once, and nothing else of its block needed."""
    wire = sent(road, numbered(0, 5 * BLOCKS + 5))
    before = [each.payload for each in wire[: BLOCKS * BLOCK]]
    last = shifted(block(wire, BLOCKS)[2], at - BLOCKS)
    back = road([fec(unmarked=unmarked)], "ingress", stream([*before, *strangers(count), last]))
    passed = strangers(count) if unmarked == "pass" else []
    assert back.payloads == numbered(0, 5 * BLOCKS) + passed + [last[:-6]]
    assert back.counters[0]["unmarked"] == count
    assert back.records[-1].time_ns == back.records[5 * BLOCKS - 1].time_ns + MILLISECOND * (count + 3)


@pytest.mark.parametrize("unmarked", ["pass", "drop"])
def test_unmarked(road: Road, unmarked: str) -> None:
    wire = stream(
        [b"", b"short", b"a longer one", b"with k = 0" + trailer(0, 0, 0), b"k" + trailer(0, 0, 201)]
    )
    back = road([fec(unmarked=unmarked)], "ingress", wire)
    assert back.payloads == ([each.payload for each in wire] if unmarked == "pass" else [])
    assert back.counted() == {"unmarked": 5}
