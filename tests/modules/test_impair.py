"""impair: what a bad network does to packets, in the shares and at the times that its parameters say."""

import math
from itertools import groupby, pairwise

import pytest

from .conftest import Road
from .impaired import MANY, START_NS, close, impaired, numbers, stream, told_apart
from .lengths import datagrams
from .wire import (
    HEADER_BYTES,
    MILLISECOND,
    UDP,
    Record,
    datagram,
    is_sound,
    payload_of,
    segment,
    unnumbered,
)

# --- nothing, and everything ---


@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest.mark.parametrize("version", [4, 6])
def test_without_parameters_it_does_nothing(road: Road, version: int, direction: str) -> None:
    sent = [Record(each, START_NS + at) for at, each in enumerate(datagrams(version))]
    passage = road([{"module": "impair"}], direction, sent)
    assert passage.records == sent
    assert passage.counted() == {}
    assert passage.engine["passed"] == len(sent)


def test_direction_restricts_it(road: Road) -> None:
    chain = [{"module": "impair", "loss_percent": 100, "direction": "ingress"}]
    assert len(road(chain, "egress", stream(9)).packets) == 9
    assert road(chain, "ingress", stream(9)).packets == []


# --- loss ---


@pytest.mark.parametrize("percent", [0.1, 1, 5, 20, 50, 99])
@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_random_loss_is_as_frequent_as_told_and_independent(
    road: Road, percent: float, direction: str
) -> None:
    passage = impaired(road, stream(MANY), direction, loss_percent=percent)
    came, share = set(numbers(passage)), percent / 100
    lost = [at not in came for at in range(MANY)]
    assert passage.counted() == {"lost": sum(lost)}
    assert close(sum(lost), MANY * share, math.sqrt(MANY * share * (1 - share)))
    pairs = sum(first and second for first, second in pairwise(lost))
    deviation = math.sqrt(MANY * share**2 * (1 - share) * (1 + 3 * share))  # of a count of runs of two
    assert close(pairs, MANY * share**2, deviation)


def test_all_and_none(road: Road) -> None:
    assert impaired(road, stream(500), loss_percent=100).packets == []
    assert len(impaired(road, stream(500), loss_percent=0).packets) == 500


@pytest.mark.parametrize(("enter", "leave"), [(1, 25), (0.5, 10), (5, 50), (2, 100), (30, 20)])
def test_bursts_are_as_long_and_as_frequent_as_gilbert_says(road: Road, enter: float, leave: float) -> None:
    passage = impaired(road, stream(MANY), burst_enter_percent=enter, burst_leave_percent=leave)
    came = set(numbers(passage))
    lost = [at not in came for at in range(MANY)]
    assert passage.counted() == {"lost": sum(lost), "lost_burst": sum(lost)}
    p, r = enter / 100, leave / 100
    bad, memory = p / (p + r), 1 - p - r
    deviation = math.sqrt(bad * (1 - bad) * (1 + memory) / (1 - memory) / MANY)
    assert close(sum(lost) / MANY, bad, deviation)
    bursts = [len(list(run)) for is_lost, run in groupby(lost) if is_lost]
    assert close(sum(bursts) / len(bursts), 1 / r, math.sqrt(1 - r) / r / math.sqrt(len(bursts)))


def test_elliott_loses_in_both_states(road: Road) -> None:
    keys = {"burst_enter_percent": 4, "burst_leave_percent": 20}
    passage = impaired(road, stream(MANY), burst_loss_percent=60, good_loss_percent=2, **keys)
    p, r, bad_loss, good_loss = 0.04, 0.20, 0.60, 0.02
    bad, memory = p / (p + r), 1 - p - r
    share = bad * bad_loss + (1 - bad) * good_loss
    between = (bad_loss - good_loss) ** 2 * bad * (1 - bad) * memory / (1 - memory)
    deviation = math.sqrt((share * (1 - share) + 2 * between) / MANY)
    assert close(1 - len(passage.packets) / MANY, share, deviation)


def test_the_two_models_together(road: Road) -> None:
    states = {"burst_enter_percent": 2, "burst_leave_percent": 30}
    chance = set(numbers(impaired(road, stream(MANY), loss_percent=5)))
    bursts = set(numbers(impaired(road, stream(MANY), **states)))
    both = impaired(road, stream(MANY), loss_percent=5, **states)
    assert set(numbers(both)) == chance & bursts
    assert both.counted() == {"lost": MANY - len(chance & bursts), "lost_burst": len(chance - bursts)}


def test_a_state_that_is_never_left(road: Road) -> None:
    keys = {"burst_enter_percent": 100, "burst_leave_percent": 0}
    assert numbers(impaired(road, stream(300), **keys)) == [0]


# --- chance ---


def test_a_seed_decides_and_all_flows_of_it_are_alike(road: Road) -> None:
    one, again, other = (impaired(road, stream(999), seed=seed, loss_percent=20) for seed in (1, 1, 2))
    assert one.records == again.records != other.records
    port = impaired(road, stream(999, packet=datagram(b"payload", port=77)), loss_percent=20)
    assert numbers(port) == numbers(one)
    back = impaired(road, stream(999), "ingress", loss_percent=20)
    assert numbers(back) != numbers(one)


def test_without_a_seed_the_replays_seed_decides(road: Road) -> None:
    chain = [{"module": "impair", "loss_percent": 20, "jitter_ms": 2}]
    runs = [road(chain, "egress", stream(999), seed=seed).records for seed in (5, 5, 6)]
    assert runs[0] == runs[1] != runs[2]


def test_what_else_happens_does_not_change_what_is_lost(road: Road) -> None:
    alone = impaired(road, stream(3000), loss_percent=5).counters[0]["lost"]
    more = {"delay_ms": 10, "jitter_ms": 10, "corrupt_percent": 10, "duplicate_percent": 10}
    assert impaired(road, stream(3000), loss_percent=5, **more).counters[0]["lost"] == alone
    few = numbers(impaired(road, stream(3000), loss_percent=10))
    assert set(few) < set(numbers(impaired(road, stream(3000), loss_percent=5)))


# --- copies ---


@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_copies_are_as_frequent_as_told_and_true(road: Road, direction: str) -> None:
    passage = impaired(road, stream(MANY), direction, duplicate_percent=10)
    copies = len(passage.packets) - MANY
    assert close(copies, MANY / 10, math.sqrt(MANY * 0.1 * 0.9))
    assert passage.counted() == {"duplicated": copies}
    assert {unnumbered(each) for each in passage.packets} == {unnumbered(datagram(b"payload"))}
    assert all(map(is_sound, passage.packets))


def test_a_copy_has_its_own_delay_and_bit_errors_and_takes_the_link(road: Road) -> None:
    keys = {"duplicate_percent": 100, "corrupt_checksum": "mend", "corrupt_percent": 50}
    passage = impaired(road, told_apart(500, 10 * MILLISECOND), delay_ms=2, jitter_ms=1, **keys)
    assert passage.counted()["duplicated"] == 500
    assert close(passage.counted()["corrupted"], 500, math.sqrt(1000 * 0.25))
    assert len({record.time_ns for record in passage.records}) == 1000
    passage = impaired(road, stream(10), duplicate_percent=100, rate_kbit_per_s=8000)
    assert [each.time_ns - START_NS for each in passage.records][:4] == [35_000, 70_000, 1_035_000, 1_070_000]


def test_what_other_modules_send_is_impaired_too(road: Road) -> None:
    chain = [
        {"module": "duplicate", "copies": 2, "spacing_ms": 1},
        {"module": "impair", "delay_ms": 20},
        {"module": "impair", "delay_ms": 0.5},
        {"module": "tag", "id": "x"},
    ]
    passage = road(chain, "egress", stream(50, 5 * MILLISECOND))
    late = sorted((record.time_ns - START_NS) % (5 * MILLISECOND) / MILLISECOND for record in passage.records)
    assert late == [0.5] * 50 + [1.5] * 50
    assert passage.counted(1) == passage.counted(2) == {"delayed": 100}
    assert passage.counted(3)["tagged"] == 100
    assert all(map(is_sound, passage.packets))


# --- bit errors ---

L4_SUM_AT = {4: 26, 6: 46}


def different_bits(one: bytes, other: bytes) -> list[int]:
    assert len(one) == len(other)
    bits = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return [at for at in range(8 * len(one)) if bits >> at & 1]


@pytest.mark.parametrize("version", [4, 6])
def test_one_bit_of_the_payload_and_a_checksum_that_is_wrong(road: Road, version: int) -> None:
    sent = [datagram(bytes([at]) * (at % 50), version) for at in range(256)]
    passage = impaired(road, [Record(each, START_NS) for each in sent], corrupt_percent=100)
    for before, after in zip(sent, passage.packets, strict=True):
        bits = different_bits(before, after)
        assert len(bits) == bool(payload_of(before))
        assert all(bit >= 8 * HEADER_BYTES[version, UDP] for bit in bits)
        assert is_sound(after) == (not bits)
    assert passage.counted() == {"corrupted": sum(bool(payload_of(each)) for each in sent)}


@pytest.mark.parametrize("version", [4, 6])
def test_mended_checksums_hide_the_error(road: Road, version: int) -> None:
    packet = datagram(bytes(300), version)
    passage = impaired(road, stream(3000, packet=packet), corrupt_percent=30, corrupt_checksum="mend")
    wrong = [each for each in passage.packets if each != packet]
    assert close(len(wrong), 900, math.sqrt(3000 * 0.3 * 0.7))
    assert all(map(is_sound, passage.packets))
    where = {different_bits(payload_of(packet), payload_of(each))[0] for each in wrong}
    assert len(where) > 700  # of 2,400 bits
    assert min(where) < 24
    assert max(where) >= 2376


def test_tcp_too(road: Road) -> None:
    sent = [Record(segment(b"data" * 20, at * 80), START_NS + at * MILLISECOND) for at in range(200)]
    chain = [{"module": "impair", "seed": 3, "corrupt_percent": 50, "delay_ms": 2, "loss_percent": 10}]
    passage = road(chain, "egress", sent, protocol="tcp")
    unsound = sum(not is_sound(each) for each in passage.packets)
    assert unsound == passage.counted()["corrupted"] > 50
    assert len(passage.packets) == 200 - passage.counted()["lost"]


def test_a_datagram_without_checksum_stays_without(road: Road) -> None:
    packet = datagram(b"odd payload")
    packet = packet[:26] + b"\0\0" + packet[28:]
    for checksum in ("keep", "mend"):
        (after,) = impaired(
            road, stream(1, packet=packet), corrupt_percent=100, corrupt_checksum=checksum
        ).packets
        assert after[26:28] == b"\0\0"
        assert len(different_bits(packet, after)) == 1


def test_an_error_outlives_the_edits_around_it(road: Road) -> None:
    """The wrong sum stays wrong, by as much, whatever modules do before and behind."""
    chain = [
        {"module": "tag", "id": "host-7"},
        {"module": "impair", "seed": 1, "corrupt_percent": 50, "delay_ms": 1},
        {"module": "scramble", "key": "sixteen bytes it is"},
    ]
    out = road(chain, "egress", stream(500))
    unsound = sum(not is_sound(each) for each in out.packets)
    assert unsound == out.counted(1)["corrupted"] > 200
    back = road([{**chain[2]}], "ingress", out.records)
    assert sum(not is_sound(each) for each in back.packets) == unsound
