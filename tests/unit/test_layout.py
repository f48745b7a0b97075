"""The two maps of a stream's layout, against a table of every byte."""

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .compiled import compiled

LENGTH = 200
RUNS = st.lists(st.one_of(st.just(0), st.integers(0, 40)), min_size=LENGTH, max_size=LENGTH)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(Path(__file__).parent / "layout_maps", tmp_path_factory.mktemp("layout"))


def counting(in_front: list[int]) -> Callable[[int], int]:
    """inserted(offset), of how many bytes stand in front of each byte; none behind the last."""
    sums = [0, *accumulate(in_front)]
    return lambda offset: sums[min(offset, len(in_front))]


def wire_of(in_front: list[int]) -> list[int]:
    """W of each offset."""
    inserted = counting(in_front)
    return [offset + inserted(offset) for offset in range(len(in_front) + 1)]


def periodic(every: int, count: int) -> Callable[[int], int]:
    return lambda offset: (offset + every - 1) // every * count


@settings(deadline=None)
@given(in_front=RUNS, near=st.integers(0, LENGTH))
def test_both_maps_against_a_table(layout: Any, in_front: list[int], near: int) -> None:
    table = wire_of(in_front)
    wires = list(range(table[-1] + 1))
    there, back = layout.maps(counting(in_front), list(range(LENGTH + 1)), wires, (near, table[near]))
    assert there == table
    assert back == [max(o for o in range(LENGTH + 1) if table[o] <= w) for w in wires]


@given(
    in_front=RUNS,
    offset=st.integers(0, LENGTH - 1),
    count=st.integers(1, LENGTH),
    guess=st.integers(0, 500),
)
def test_the_next_run_and_the_last_one(
    layout: Any, in_front: list[int], offset: int, count: int, guess: int
) -> None:
    end = min(offset + count, LENGTH)
    having = [o for o in range(LENGTH) if in_front[o]]
    behind = min((o for o in having if offset < o < end), default=end)
    before = max((o for o in having if offset <= o < end), default=-1)
    assert layout.runs(counting(in_front), offset, end, guess) == (behind, before)


@pytest.mark.parametrize(("every", "count"), [(1000, 32), (1, 1), (3, 1000), (1 << 20, 1), (16, 255)])
@given(offset=st.integers(0, 1 << 44), near=st.integers(0, 1 << 44))
def test_there_and_back_far_out(layout: Any, every: int, count: int, offset: int, near: int) -> None:
    """Every wire offset of a run belongs to the byte behind it, wherever the search begins."""
    inserted = periodic(every, count)
    run, place = offset + inserted(offset), offset + 1 + inserted(offset + 1) - 1
    hint = (near, near + inserted(near))
    assert layout.maps(inserted, [offset], [run, (run + place) // 2, place], hint) == ([run], [offset] * 3)


def test_what_stands_in_front_of_the_stream_stays(layout: Any) -> None:
    assert layout.maps(periodic(10, 4), [-5, -1, 0, 1], [-5, -1, 0, 3, 4, 5]) == (
        [-5, -1, 0, 5],
        [-5, -1, 0, 0, 0, 1],
    )
