"""Lists of processors: how they are written, which can be had, and where each worker goes."""

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer45.errors import Layer45Error
from layer45.processors import (
    MOST,
    as_text,
    check_usable,
    keep_to,
    next_of,
    of_thread,
    parse,
    usable,
)

NOT_THERE = MOST - 1  # on no machine that runs these tests


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("0", (0,)),
        ("0-3,6", (0, 1, 2, 3, 6)),
        ("6,0-2", (6, 0, 1, 2)),
        (" 1 , 3-3 ", (1, 3)),
        (str(MOST - 1), (MOST - 1,)),
    ],
)
def test_lists(text: str, expected: tuple[int, ...]) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [" ", ",", "1,", ",1", "1,,2", "-1", "1-", "3-1", "0x1", "all", "0-2-4", "0-7:2", "1 2", "1.5", "\u0661",
     "0,0", "0-3,2", str(MOST), f"0-{MOST}", "99999999999", "0-99999999999", "-", "0\n,\0"],
)  # fmt: skip
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError, match="expected a list of processors, each once and below 8192, such as"):
        parse(text)


@given(st.sets(st.integers(0, MOST - 1), min_size=1))
def test_a_set_and_its_text(processors: set[int]) -> None:
    assert set(parse(as_text(processors))) == processors


def test_the_kernel_writes_lists_so() -> None:
    told = re.search(r"Cpus_allowed_list:\s(\S+)", Path("/proc/thread-self/status").read_text())
    assert told and as_text(os.sched_getaffinity(0)) == told[1]


def test_what_can_be_had_is_what_each_can_be_asked_for() -> None:
    """One by one, as workers ask; beside what is there, no other."""

    def granted(processor: int) -> bool:
        try:
            os.sched_setaffinity(0, {processor})
        except OSError:
            return False
        return os.sched_getaffinity(0) == {processor}

    asked = range((os.cpu_count() or 1) + 2)
    with ThreadPoolExecutor(1) as threads:
        each = {processor for processor in asked if threads.submit(granted, processor).result()}
    assert usable() & set(asked) == each


def test_what_a_thread_runs_on_now_does_not_limit_what_can_be_had() -> None:
    def kept() -> frozenset[int]:
        keep_to(min(before))
        return usable()

    before = usable()
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(kept).result() == before


def test_others_are_refused_by_number() -> None:
    check_usable(())
    check_usable(usable())
    expected = f"may use, {as_text(usable())}; got {NOT_THERE - 1}-{NOT_THERE} too$"
    with pytest.raises(Layer45Error, match=expected):
        check_usable([*usable(), NOT_THERE - 1, NOT_THERE])


def test_a_daemon_that_may_not_choose_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pytest.raises(Layer45Error, match="processor: Operation not permitted; allow it sched_setaffinity"):
        check_usable((0,))
    check_usable(())


def test_a_thread_keeps_to_one_and_no_other_thread_does() -> None:
    before, one = os.sched_getaffinity(0), max(usable())
    at, kept, end = [0], threading.Event(), threading.Event()

    def run() -> None:
        at[0] = threading.get_native_id()
        keep_to(one)
        kept.set()
        end.wait(10)

    thread = threading.Thread(target=run)
    thread.start()
    assert kept.wait(10)
    assert of_thread(at[0]) == str(one)
    assert os.sched_getaffinity(0) == before
    end.set()
    thread.join()
    until = time.monotonic() + 5
    while of_thread(at[0]) and time.monotonic() < until:  # the kernel's thread ends after Python's
        time.sleep(0.001)
    assert of_thread(at[0]) == of_thread(None) == ""


@pytest.mark.parametrize("processor", [None, NOT_THERE])
def test_without_one_a_thread_stays_where_it_is(processor: int | None) -> None:
    before = os.sched_getaffinity(0)
    keep_to(processor)
    assert os.sched_getaffinity(0) == before


def placed(listed: tuple[int, ...], workers: int) -> list[int | None]:
    taken: list[int | None] = []
    for _ in range(workers):
        taken.append(next_of(listed, taken))
    return taken


def test_workers_go_round_the_list_in_its_order() -> None:
    assert placed((6, 0, 1), 7) == [6, 0, 1, 6, 0, 1, 6]
    assert placed((3,), 2) == [3, 3]
    assert placed((), 2) == [None, None]


def test_a_new_worker_gets_what_one_that_ended_has_left() -> None:
    assert next_of((6, 0, 1), [6, 1, 6, 0]) == 0
    assert next_of((6, 0, 1), [6, None, 1]) == 0
