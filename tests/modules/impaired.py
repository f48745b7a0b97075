"""Streams of packets through impair, and what became of them."""

from collections.abc import Sequence
from typing import Any

from .conftest import Passage, Road
from .wire import MILLISECOND, Record, datagram

START_NS = 10**12
MANY = 20_000
Z_999 = 3.2905  # 99.9 % of a normal distribution lie within so many standard deviations


def stream(count: int, spacing_ns: int = MILLISECOND, packet: bytes | None = None) -> list[Record]:
    """One flow of like packets, told apart by their times."""
    packet = packet or datagram(b"payload")
    return [Record(packet, START_NS + at * spacing_ns) for at in range(count)]


def numbers(passage: Passage, spacing_ns: int = MILLISECOND) -> list[int]:
    """Which packets of a stream came through, where none is delayed."""
    return [(record.time_ns - START_NS) // spacing_ns for record in passage.records]


def impaired(
    road: Road, sent: Sequence[Record], direction: str = "egress", seed: int = 1, **parameters: Any
) -> Passage:
    passage = road([{"module": "impair", "seed": seed, **parameters}], direction, sent)
    assert passage.engine["module_errors"] == 0
    assert set(passage.live.values()) == {0}
    return passage


def close(found: float, expected: float, deviation: float) -> bool:
    return abs(found - expected) <= Z_999 * deviation


def told_apart(count: int, spacing_ns: int) -> list[Record]:
    return [Record(datagram(at.to_bytes(4, "big")), START_NS + at * spacing_ns) for at in range(count)]


def latencies(passage: Passage, spacing_ns: int) -> list[int]:
    """ns, in the order of arrival."""
    return [
        record.time_ns - START_NS - int.from_bytes(record.payload, "big") * spacing_ns
        for record in passage.records
    ]


def order(passage: Passage) -> list[int]:
    return [int.from_bytes(each, "big") for each in passage.payloads]
