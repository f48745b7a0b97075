"""fec with reorder_ms: datagrams are delivered in the order in which they were sent, or after a wait."""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.errors import Layer45Error

from .conftest import Road
from .wire import MILLISECOND, Record, datagram

WAIT_MS = 60


def fec(**more: Any) -> dict[str, Any]:
    return {"module": "fec", "source_symbols": 5, "repair_symbols": 2, "reorder_ms": WAIT_MS, **more}


def numbered(count: int, spacing_ns: int) -> list[Record]:
    return [Record(datagram(at.to_bytes(4, "big")), 10**9 + at * spacing_ns) for at in range(count)]


def numbers(records: list[Record]) -> list[int]:
    return [int.from_bytes(each.payload, "big") for each in records]


@given(
    seed=st.integers(0, 999), spacing_us=st.sampled_from([10, 900, 3000, 20000]), most_lost=st.integers(0, 2)
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_recovered_in_time_comes_in_its_place(
    road: Road, seed: int, spacing_us: int, most_lost: int
) -> None:
    """Losses that the code repairs, jitter of less than the wait; all repairs of short blocks arrive."""
    chance = random.Random(seed)
    out = road([fec()], "egress", numbered(60, spacing_us * 1000)).records
    blocks: dict[int, list[Record]] = {}
    for record in out:
        blocks.setdefault(int.from_bytes(record.payload[-6:-3], "big"), []).append(record)
    kept = []
    for block in blocks.values():
        spare = sum(record.payload[-3] >= int.from_bytes(record.payload[-2:], "big") for record in block)
        lost = chance.sample(block[: len(block) - 1], min(most_lost, spare - 1)) if spare > 1 else []
        kept += [record for record in block if record not in lost]
    late = [Record(each.packet, each.time_ns + chance.randrange(4 * MILLISECOND)) for each in kept[1:]]
    wire = sorted([kept[0], *late], key=lambda each: each.time_ns)
    back = road([fec()], "ingress", wire)
    assert numbers(back.records) == list(range(60))
    assert set(back.live.values()) == {0}


def test_the_wait_is_bounded(road: Road) -> None:
    out = road([fec(repair_symbols=0)], "egress", numbered(20, MILLISECOND)).records
    back = road([fec()], "ingress", [each for at, each in enumerate(out) if at != 7])
    assert numbers(back.records) == [at for at in range(20) if at != 7]
    late_ms = [
        (after.time_ns - before.time_ns) // MILLISECOND
        for before, after in zip([each for at, each in enumerate(out) if at != 7], back.records, strict=True)
    ]
    assert late_ms[:7] == [0] * 7
    assert late_ms[7:] == [WAIT_MS - at for at in range(12)]
    assert back.counted()["waited"] == 12


def test_the_line_is_bounded(road: Road) -> None:
    """Of more than 128 that wait, the first one goes."""
    out = road([fec(repair_symbols=0)], "egress", numbered(300, 1000)).records
    back = road([fec()], "ingress", [each for at, each in enumerate(out) if at != 7])
    assert numbers(back.records) == [at for at in range(300) if at != 7]
    assert 128 <= back.counted()["waited"] <= 140
    assert back.records[20].time_ns < 10**9 + MILLISECOND


def test_what_comes_late_goes_at_once(road: Road) -> None:
    out = road([fec(repair_symbols=0)], "egress", numbered(10, MILLISECOND)).records
    wire = [*out[:3], *out[4:9], Record(out[3].packet, out[8].time_ns + 1), out[9]]
    back = road([fec(reorder_ms=2)], "ingress", wire)
    assert numbers(back.records) == [0, 1, 2, 4, 5, 6, 7, 8, 3, 9]
    assert back.records[8].time_ns == out[8].time_ns + 1


def test_it_needs_a_sender_that_does_not_interleave(road: Road) -> None:
    with pytest.raises(Layer45Error, match="reorder_ms: expected 0 with interleave above 1"):
        road([fec(interleave=2)], "egress", numbered(1, 1))
