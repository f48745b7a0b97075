"""The judge of a soak, on series like those it gets: one as it should be, and one for each thing wrong."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from perf.soak_judge import MOST_UNDER_WAY, Delivery, Sample, judge, lives, slope, warmed

FAULTS = ("verdict_errors", "module_errors")
NONE_LIVE = {"flows": 0, "timers": 0}
PID, HEIR = 700, 701
SECONDS = 60


def engine(received: int, **more: int) -> dict[str, int]:
    counts = {"received": received, "passed": received // 4, "rewritten": received - received // 4 - 7}
    return counts | {"dropped": 7, "held": 0, "verdict_errors": 0, "module_errors": 0} | more


def looked(second: int, grown_kb: float = 0.0) -> Sample:
    """As a daemon is under load: memory between 51 and 58 MB, and up and down by reloads."""
    chance = random.Random(second)
    warming = min(second, 8) * 700
    memory = 51_500 + warming + chance.choice((0, 0, 0, 900)) + chance.randrange(-200, 200)
    idle = second in (0, SECONDS)
    return Sample(
        seconds=float(second),
        pid=PID,
        memory_kb=int(memory + grown_kb * second),
        resident_kb=int(memory * 1.1),
        descriptors=22 if idle else 22 + chance.randrange(4),
        threads=4 if idle else 4 + chance.randrange(3),
        waiting=0 if idle else chance.randrange(20),
        live=NONE_LIVE if idle else {"flows": chance.randrange(3000), "timers": 50},
        engine=engine(7 + 9000 * second),
    )


def series(grown_kb: float = 0.0) -> list[Sample]:
    return [looked(second, grown_kb) for second in range(SECONDS + 1)]


SENT = {"datagrams": Delivery(3000, 2000, 2000), "TCP": Delivery(90, 90, 90, datagrams=False)}


def judged(
    samples: list[Sample], sent: dict[str, Delivery] = SENT, unread: int = 0, sums: int = 0
) -> list[str]:
    return judge({"a": samples}, sent, unread, {"a": sums}, FAULTS)


def changed(at: int, **values: object) -> Callable[[], list[Sample]]:
    def make() -> list[Sample]:
        samples = series()
        samples[at] = replace(samples[at], **values)  # type: ignore[arg-type]
        return samples

    return make


def test_nothing_is_wrong_with_what_is_as_it_should_be() -> None:
    assert judged(series()) == []


@pytest.mark.parametrize("leak_kb_per_s", [90, 120, 400])
def test_memory_that_grows_is_found(leak_kb_per_s: float) -> None:
    (line,) = judged(series(leak_kb_per_s))
    assert line.startswith(f"a: process {PID} grew by ")


def test_memory_that_reloads_move_up_and_down_has_not_grown() -> None:
    assert judged(series(30)) == []


def test_a_leak_of_a_successor_is_its_own() -> None:
    """Fresh memory after a restart does not hide it."""
    whole = series()
    heir = [replace(each, pid=HEIR, memory_kb=51_000 + 300 * at) for at, each in enumerate(whole[30:])]
    (line,) = judged([*whole[:30], *heir])
    assert line.startswith(f"a: process {HEIR} grew by ")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (changed(30, memory_kb=90_000), "had 90000 kB for a time"),
        (changed(-1, descriptors=23), "23 descriptors when idle, 22 in the beginning"),
        (changed(-1, threads=5), "5 threads when idle, 4 in the beginning"),
        (changed(30, descriptors=80), "80 descriptors for a time, 22 in the beginning"),
        (changed(-1, waiting=3), "3 packets left in the queues"),
        (changed(-1, live={"flows": 2, "timers": 0}), "2 flows left in the end, 0 in the beginning"),
        (changed(30, dropped=5), f"process {PID}: the kernel dropped 5 packets from the queues"),
        (changed(30, engine=engine(270_007, verdict_errors=2)), f"process {PID}: verdict_errors 2"),
        (changed(-1, engine=engine(540_008, dropped=6)), "540008 packets received, 540007 answered or held"),
        (
            changed(30, engine=engine(270_007, dropped=8 + MOST_UNDER_WAY)),
            "after 30 s: 270007 packets received",
        ),
        (changed(-1, seconds=99.0), "no sample from 59 s to 99 s"),
    ],
)
def test_each_thing_that_is_wrong_has_its_line(make: Callable[[], list[Sample]], expected: str) -> None:
    (line,) = judged(make())
    assert line.startswith("a: ")
    assert expected in line


def test_packets_held_in_the_end_are_found() -> None:
    last = engine(540_007) | {"held": 2, "passed": 135_001 - 2}
    assert "a: 2 packets held in the end" in judged(changed(-1, engine=last)())


def test_packets_under_way_are_not_missing() -> None:
    assert judged(changed(30, engine=engine(270_008, dropped=7 - 1))()) == []


@pytest.mark.parametrize(
    ("delivery", "unread", "expected"),
    [
        (Delivery(0, 0, 0), 0, "x: nothing was sent"),
        (Delivery(30, 20, 19), 0, "x: 1 of 20 did not arrive; receivers left 0 unread"),
        (Delivery(30, 20, 17), 2, "x: 3 of 20 did not arrive; receivers left 2 unread"),
        (Delivery(30, 20, 21), 0, "x: 21 arrived, 20 of 30 were to"),
        (Delivery(30, 20, 20, twice=1), 0, "x: 1 came twice"),
        (Delivery(30, 30, 29, datagrams=False), 5, "x: 29 of 30 arrived"),
    ],
)
def test_what_does_not_arrive_is_found(delivery: Delivery, unread: int, expected: str) -> None:
    assert judged(series(), {"x": delivery}, unread) == [expected]


def test_what_receivers_left_unread_is_not_ours() -> None:
    assert judged(series(), {"x": Delivery(30, 20, 18)}, unread=2) == []


def test_wrong_checksums_are_found() -> None:
    assert judged(series(), sums=4) == ["a: 4 packets with a wrong checksum"]


def test_a_line_is_not_moved_by_outliers() -> None:
    points = [(float(at), 3.0 * at + (500 if at % 10 == 0 else 0)) for at in range(100)]
    assert slope(points) == pytest.approx(3.0, abs=0.2)


def test_lives_and_their_warm_up() -> None:
    samples = [replace(each, pid=HEIR if each.seconds >= 40 else PID) for each in series()]
    first, second = lives(samples)
    assert (len(first), len(second)) == (40, 21)
    assert [warmed(life)[0].seconds for life in (first, second)] == [10.0, 45.0]
