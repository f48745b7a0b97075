"""fec and peers that are not as it would like them: begun anew, of other parameters, or without fec at all.

Nothing of it may cost a datagram or a bit of one. What the code recovers is in test_fec_reference.py, and how
much of it in replay/test_fec_residual.py.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from .conftest import Road
from .lengths import payloads
from .wire import MILLISECOND, Record, datagram

START_NS = 10**12
K, M = 10, 3


def fec(k: int = K, m: int = M, **more: Any) -> dict[str, Any]:
    return {"module": "fec", "source_symbols": k, "repair_symbols": m, **more}


def content(number: int) -> bytes:
    """All of one length: what is wrongly put together from them looks right."""
    return number.to_bytes(4, "big") + hashlib.sha256(b"%d" % number).digest()


def stream(first: int, count: int, spacing_ns: int = MILLISECOND // 2) -> list[Record]:
    """From `first` on."""
    numbers = range(first, first + count)
    return [Record(datagram(content(each)), START_NS + each * spacing_ns) for each in numbers]


def numbers(payloads: Sequence[bytes]) -> list[int]:
    """Of a stream's datagrams; AssertionError when one was altered."""
    found = [int.from_bytes(each[:4], "big") for each in payloads]
    assert [content(each) for each in found] == list(payloads)
    return found


# --- a sender that begins anew ----------------------------------------------------------------

BEFORE = [1, 9, 10, 35, 600, 905, 2000]  # 64 blocks are remembered


@pytest.mark.parametrize("after", [(K, M), (20, 4)], ids=str)
@pytest.mark.parametrize("before", BEFORE)
def test_a_sender_that_begins_anew_loses_nothing(road: Road, before: int, after: tuple[int, int]) -> None:
    """As after a restart or a reload of its daemon: another seed is another numbering."""
    wire = road([fec()], "egress", stream(0, before)).records
    wire += road([fec(*after)], "egress", stream(before, 1000), seed=2).records
    for parameters in ((K, M), after):
        back = road([fec(*parameters)], "ingress", wire)
        assert numbers(back.payloads) == list(range(before + 1000))
        assert back.counted()["restarts"] == 1


@pytest.mark.parametrize("before", [5, 25, 85])
def test_blocks_of_two_numberings_do_not_mix(road: Road, before: int) -> None:
    """A sender that was killed left half a block: what is lost of its successor is not made up with that."""
    killed = road([fec()], "egress", stream(0, before)).records
    half = killed[: (before - 5) // K * (K + M) + 5]
    assert numbers([half[-1].payload[:-6]]) == [before - 1]
    anew = road([fec()], "egress", stream(before, 1000), seed=2).records
    for lost in range(len(half) - 5, len(half) + 8):
        back = road([fec()], "ingress", half + anew[:lost] + anew[lost + 1 :])
        assert sorted(numbers(back.payloads)) == list(range(before + 1000))


# --- a peer without fec, or with another ------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_what_a_peer_without_fec_sends_passes(road: Road, version: int) -> None:
    """Of every length, text and noise. Some of the noise looks like ids, and waits for the next a little."""
    sent = payloads([*range(600), *[600] * 4000])
    wire = [Record(datagram(each, version), START_NS + at * MILLISECOND) for at, each in enumerate(sent)]
    back = road([fec()], "ingress", wire)
    assert Counter(back.packets) == Counter(record.packet for record in wire)
    assert back.counted() == {"unmarked": len(sent)}
    waited = [each.time_ns - wire[at].time_ns for at, each in enumerate(sorted_as(back.records, wire))]
    assert 0 < sum(map(bool, waited)) <= 8 and max(waited) <= 30 * MILLISECOND


def sorted_as(records: Sequence[Record], wire: Sequence[Record]) -> list[Record]:
    place = {record.packet: at for at, record in enumerate(wire)}
    return sorted(records, key=lambda record: place[record.packet])


def dns_query(serial: int, kind: int) -> bytes:
    """As glibc's resolver asks: no EDNS, the class at the end."""
    head = serial.to_bytes(2, "big") + bytes.fromhex("0100 0001 0000 0000 0000")
    return head + b"\3www\7example\4test\0" + kind.to_bytes(2, "big") + b"\0\1"


def test_queries_of_a_resolver_without_fec_pass(road: Road) -> None:
    """One for A and one for AAAA from the same port: 0001 0001 and 001c 0001 at the end of the same name look
    like two repair datagrams of one block, and of these two repeated queries are more."""
    sent = [dns_query(serial, kind) for serial in (0x1234, 0x0034, 0xFF00) for kind in (1, 28) * 2]
    for spacing_ms in (0, 1, 100):
        times = [START_NS + at * spacing_ms * MILLISECOND for at in range(len(sent))]
        wire = [Record(datagram(*each), time_ns) for each, time_ns in zip(zip(sent), times, strict=True)]
        back = road([fec()], "ingress", wire)
        assert sorted(back.payloads) == sorted(sent)
        assert back.counted() == {"unmarked": len(sent)}


def test_what_a_peer_without_fec_receives(road: Road) -> None:
    """Each datagram with six bytes more behind it, at once, and repairs: one end alone is of no use."""
    out = road([fec()], "egress", stream(0, 100))
    sources = [record for record in out.records if record.payload[-3] < K]
    assert numbers([record.payload[:-6] for record in sources]) == list(range(100))
    assert [record.time_ns for record in sources] == [record.time_ns for record in stream(0, 100)]
    assert len(out.records) - len(sources) == 100 // K * M


@pytest.mark.parametrize("spacing_ms", [0.1, 3, 20])
@pytest.mark.parametrize(
    ("here", "there"), [((10, 3), (20, 4)), ((20, 4), (10, 3)), ((10, 3), (1, 1))], ids=str
)
def test_a_peer_with_other_parameters(
    road: Road, here: tuple[int, int], there: tuple[int, int], spacing_ms: float
) -> None:
    """They are the sender's business: the receiver understands all, and recovers as much."""
    sent = stream(0, 400, int(spacing_ms * MILLISECOND))
    out = road([fec(*here)], "egress", sent)
    lossy = [record for record in out.records if record.payload[:4] != content(7)[:4] or is_repair(record)]
    for wire, recovered in ((out.records, 0), (lossy, 1)):
        back = road([fec(*there)], "ingress", wire)
        assert sorted(numbers(back.payloads)) == list(range(400))
        assert back.counted().get("recovered", 0) == recovered == len(out.records) - len(wire)
        assert back.counted()["other_parameters"] > 0
        assert "unmarked" not in back.counted()


def is_repair(record: Record) -> bool:
    return record.payload[-3] >= int.from_bytes(record.payload[-2:], "big")


@pytest.mark.parametrize(("m", "deadline_ms"), [(4, 200), (0, 8)])
def test_a_slow_peer_with_other_parameters_and_late_repairs(road: Road, m: int, deadline_ms: int) -> None:
    """No second datagram comes in time to tell that the first one is ours: that one is not understood, the
    others are."""
    out = road([fec(20, m, deadline_ms=deadline_ms)], "egress", stream(0, 50, 100 * MILLISECOND))
    back = road([fec()], "ingress", out.records)
    assert back.counted()["unmarked"] == 1
    (first, *others) = back.payloads
    assert first[:-6] == content(0)
    assert sorted(numbers(others)) == list(range(1, 50))


@pytest.mark.parametrize("spacing_ms", [0.5, 20, 200])
def test_a_peer_that_begins_in_the_middle_of_a_flow(road: Road, spacing_ms: float) -> None:
    """Datagrams without an id, then with: from the first one on they are understood; and again without."""
    spacing_ns = int(spacing_ms * MILLISECOND)
    before, amid, after = (stream(first, 100, spacing_ns) for first in (0, 100, 200))
    marked = road([fec()], "egress", amid).records
    back = road([fec()], "ingress", before + marked + after)
    assert numbers(back.payloads) == list(range(300))
    assert back.counted()["unmarked"] == 200 and back.counted()["arrived"] == 100


# --- a receiver that comes in the middle ------------------------------------------------------


@pytest.mark.parametrize("spacing_ms", [0.1, 3, 20])
@pytest.mark.parametrize("missed", [*range(14), *range(17 * 13, 18 * 13)])
def test_a_receiver_that_begins_anew_delivers_no_repair(road: Road, missed: int, spacing_ms: float) -> None:
    """As after a restart of its daemon, whatever comes first: each datagram once, and none that came before.
    (In the first blocks it cannot know whether that was lost, and makes it anew.)"""
    sent = stream(0, 250, int(spacing_ms * MILLISECOND))
    wire = road([fec()], "egress", sent).records[missed:]
    back = road([fec()], "ingress", wire)
    found = numbers(back.payloads)
    assert len(set(found)) == len(found)
    came = {int.from_bytes(each.payload[:4], "big") for each in wire if not is_repair(each)}
    assert set(found) == came if missed >= 17 * (K + M) or not came else set(found) >= came
    assert "unmarked" not in back.counted()


def test_a_lone_repair_at_a_flows_beginning_is_none_of_the_programs(road: Road) -> None:
    """Of the first block, of two datagrams, nothing came but one repair; later ones are as ever."""
    out = road([fec(deadline_ms=40)], "egress", stream(0, 100, 30 * MILLISECOND)).records
    assert [is_repair(each) for each in out[:5]] == [False, False, True, True, False]
    back = road([fec(deadline_ms=40)], "ingress", out[3:])
    assert numbers(back.payloads) == list(range(2, 100))
    assert "unmarked" not in back.counted()


def test_a_block_is_not_given_up_before_its_deadline(road: Road) -> None:
    """give_up_ms is 250; the sender closes its blocks after 1000 ms."""
    out = road([fec(deadline_ms=1000)], "egress", stream(0, 40, 300 * MILLISECOND)).records
    wire = [each for each in out if is_repair(each) or int.from_bytes(each.payload[:4], "big") % 4 != 1]
    back = road([fec(deadline_ms=1000)], "ingress", wire)
    assert sorted(numbers(back.payloads)) == list(range(40))
    assert back.counted()["recovered"] == 10
