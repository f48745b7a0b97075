"""impair: when packets leave, in which order, what a slow link carries; and that the reference agrees."""

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Passage, Road
from .impaired import MANY, START_NS, close, impaired, latencies, order, stream, told_apart
from .wire import MILLISECOND, Record, datagram, unnumbered


@pytest.mark.parametrize("direction", ["egress", "ingress"])
@pytest.mark.parametrize("delay_ms", [0.001, 0.5, 20, 333.25, 10_000])
def test_a_delay_is_exact(road: Road, delay_ms: float, direction: str) -> None:
    sent = [Record(datagram(bytes([at])), START_NS + at * 15 * MILLISECOND) for at in range(250)]
    passage = impaired(road, sent, direction, delay_ms=delay_ms)
    late_ns = int(delay_ms * MILLISECOND)
    assert passage.records == [Record(each.packet, each.time_ns + late_ns) for each in sent]
    assert passage.counted() == {"delayed": 250}


def test_jitter_stays_within_its_bounds_and_is_even(road: Road) -> None:
    passage = impaired(road, told_apart(5000, MILLISECOND), delay_ms=20, jitter_ms=5)
    late = latencies(passage, MILLISECOND)
    low, high = 15 * MILLISECOND, 25 * MILLISECOND
    assert low <= min(late) < low + high / 1000
    assert high - high / 1000 < max(late) <= high
    assert close(sum(late) / 5000, 20 * MILLISECOND, 10 * MILLISECOND / math.sqrt(12 * 5000))
    below = sum(each < 17.5 * MILLISECOND for each in late)
    assert close(below, 1250, math.sqrt(5000 * 0.25 * 0.75))
    times = [record.time_ns for record in passage.records]
    assert times == sorted(times)
    assert sorted(order(passage)) == list(range(5000)) != order(passage)


def test_jitter_never_lets_a_packet_leave_before_it_came(road: Road) -> None:
    late = latencies(impaired(road, told_apart(1000, MILLISECOND), delay_ms=1, jitter_ms=5), MILLISECOND)
    assert min(late) == 0
    assert max(late) <= 6 * MILLISECOND
    assert close(late.count(0), 400, math.sqrt(1000 * 0.4 * 0.6))


def test_keep_order_keeps_it(road: Road) -> None:
    free = impaired(road, told_apart(1000, MILLISECOND), delay_ms=20, jitter_ms=15)
    kept = impaired(road, told_apart(1000, MILLISECOND), delay_ms=20, jitter_ms=15, keep_order=True)
    assert order(kept) == list(range(1000))
    assert max(latencies(kept, MILLISECOND)) <= 35 * MILLISECOND
    own = dict(zip(order(free), latencies(free, MILLISECOND), strict=True))
    assert all(late >= own[at] for at, late in enumerate(latencies(kept, MILLISECOND)))


def test_jitter_less_than_the_spacing_reorders_nothing(road: Road) -> None:
    passage = impaired(road, told_apart(1000, MILLISECOND), delay_ms=3, jitter_ms=0.49)
    assert order(passage) == list(range(1000))


def test_reordered_packets_leave_at_once(road: Road) -> None:
    passage = impaired(road, told_apart(MANY, MILLISECOND), delay_ms=4, reorder_percent=25)
    late = latencies(passage, MILLISECOND)
    assert set(late) == {0, 4 * MILLISECOND}
    assert close(late.count(0), MANY / 4, math.sqrt(MANY * 0.25 * 0.75))
    assert passage.counted() == {"delayed": MANY - late.count(0), "reordered": late.count(0)}


@pytest.mark.parametrize("gap", [1, 2, 5])
def test_a_gap_reorders_each_so_many_th(road: Road, gap: int) -> None:
    keys = {"delay_ms": 0.5, "reorder_percent": 100, "reorder_gap": gap}
    passage = impaired(road, told_apart(100, MILLISECOND), **keys)
    assert [at for at, late in enumerate(latencies(passage, MILLISECOND)) if not late] == [
        at for at in range(100) if at % gap == gap - 1
    ]


# --- the link ---


class Link:
    """A transmitter with a queue, packet by packet, in whole bits at a rate that divides the second."""

    def __init__(self, ns_per_byte: int, queue_ns: int) -> None:
        self.ns_per_byte, self.queue_ns = ns_per_byte, queue_ns
        self.leaving: list[tuple[int, int]] = []  # when each packet's first and last bit leave

    def __call__(self, record: Record) -> int | None:
        waiting = [(first, last) for first, last in self.leaving if last > record.time_ns]
        begin = waiting[-1][1] if waiting else record.time_ns
        if begin - record.time_ns > self.queue_ns:
            return None
        self.leaving.append((begin, begin + len(record.packet) * self.ns_per_byte))
        return self.leaving[-1][1]


@pytest.mark.parametrize("queue_ms", [0, 1, 7.5, 40])
@pytest.mark.parametrize("version", [4, 6])
def test_the_rate_is_exact_to_the_packet(road: Road, queue_ms: float, version: int) -> None:
    lengths = [(at * 7919) % 1400 for at in range(600)]
    packets = [datagram(bytes(each), version) for each in lengths]
    sent = [Record(each, START_NS + at * 700_000 * (at % 3 > 0)) for at, each in enumerate(packets)]
    sent.sort(key=lambda record: record.time_ns)
    link = Link(1000, int(queue_ms * MILLISECOND))  # 8,000 kbit/s
    expected = [(time_ns, each.packet) for each in sent if (time_ns := link(each)) is not None]
    passage = impaired(road, sent, rate_kbit_per_s=8000, queue_ms=queue_ms)
    assert [(each.time_ns, each.packet) for each in passage.records] == expected
    assert passage.counted().get("queue_full", 0) == len(sent) - len(expected) > 0


def test_a_saturated_link_carries_its_rate(road: Road) -> None:
    sent = stream(MANY, 100_000, datagram(bytes(972)))  # 80 Mbit/s
    passage = impaired(road, sent, rate_kbit_per_s=10_000, queue_ms=20, delay_ms=3)
    last_s = (passage.records[-1].time_ns - START_NS) / 1e9 - 0.003
    assert sum(map(len, passage.packets)) * 8 == pytest.approx(10_000_000 * last_s, rel=1e-9)


def test_reordered_packets_still_wait_for_the_link(road: Road) -> None:
    keys = {"rate_kbit_per_s": 8000, "reorder_percent": 50, "delay_ms": 30}
    passage = impaired(road, told_apart(100, 32_000), **keys)
    lines = {record.time_ns - START_NS - (at + 1) * 32_000 for at, record in zip_order(passage)}
    assert lines == {0, 30 * MILLISECOND}


def zip_order(passage: Passage) -> list[tuple[int, Record]]:
    return list(zip(order(passage), passage.records, strict=True))


def test_what_the_pool_has_no_room_for_is_dropped(road: Road) -> None:
    passage = impaired(road, stream(1500, 1000), delay_ms=50)
    assert passage.counted() == {"delayed": 1500, "not_held": 476}
    assert len(passage.packets) == 1024
    passage = impaired(road, stream(1500, 1000), duplicate_percent=100, delay_ms=50)
    assert passage.counted()["not_copied"] > 0


# --- the reference ---

percent = st.sampled_from([0, 0, 1, 30, 100])
few_ms = st.sampled_from([0, 0, 0.25, 3, 7.123456])
entries = st.fixed_dictionaries(
    {"seed": st.integers(1, (1 << 63) - 1), "corrupt_checksum": st.just("mend")},
    optional={
        **dict.fromkeys(
            ("loss_percent", "burst_enter_percent", "good_loss_percent", "duplicate_percent"), percent
        ),
        **dict.fromkeys(("burst_leave_percent", "burst_loss_percent"), st.sampled_from([0, 40, 100])),
        **dict.fromkeys(("reorder_percent", "corrupt_percent"), percent),
        **dict.fromkeys(("delay_ms", "jitter_ms", "queue_ms"), few_ms),
        "rate_kbit_per_s": st.sampled_from([0, 64, 777.7, 10_000]),
        "keep_order": st.booleans(),
        "reorder_gap": st.integers(1, 4),
    },
)
steps = st.lists(
    st.tuples(st.sampled_from([0, 0.1, 1, 5]), st.integers(0, 300), st.integers(5000, 5002)), max_size=40
)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("direction", ["egress", "ingress"])
@given(entry=entries, steps=steps)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reference_does_the_same(
    road: Road, direction: str, version: int, entry: dict[str, Any], steps: list[tuple[float, int, int]]
) -> None:
    now_ms, sent = 0.0, []
    for wait_ms, length, port in steps:
        now_ms += wait_ms
        packet = datagram(bytes(length), version, port)
        sent.append(Record(packet, START_NS + int(now_ms * MILLISECOND)))
    hot = road([{"module": "impair", **entry}], direction, sent)
    reference = road([{"module": "impair", **entry}], direction, sent, reference=True)
    assert fates(hot) == fates(reference)
    assert hot.counters == reference.counters
    assert set(hot.live.values()) == {0}


def fates(passage: Passage) -> list[tuple[int, bytes]]:
    return [(record.time_ns, unnumbered(record.packet)) for record in passage.records]
