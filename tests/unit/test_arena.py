"""The arena against a plain dictionary of what is out."""

import ctypes
import random
from bisect import bisect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer45.fastpath.arena import Arena

UNIT, MOST, LEAST = 256, 2**17, 2**18
WORD = 2**64  # addresses wrap there
sizes = st.one_of(st.integers(0, MOST), st.integers(0, 3000), st.sampled_from([2**n + 1 for n in range(17)]))
actions = st.one_of(
    st.tuples(st.just("take"), sizes),
    st.tuples(st.just("give"), st.integers(0, 2**16)),
    st.tuples(st.just("misuse"), st.integers(-(2**19), 2**19)),
    st.tuples(st.just("again"), st.integers(0, 2**16)),
)


def cell_bytes(count: int) -> int:
    return max(UNIT, 1 << (count - 1).bit_length()) if count else UNIT


def scribble(address: int, count: int) -> None:
    """As a borrower may: whatever is there belongs to it."""
    ctypes.memset(address, 0xFF, count)


def take(arena: Arena, out: dict[int, int], count: int) -> int | None:
    """Takes, and checks what it gets against all that is out: address → bytes of its cell."""
    address = arena.take(count)
    if address is None:
        return None
    whole = cell_bytes(count)
    assert address % UNIT == 0 and (address - arena.base) % whole == 0
    assert arena.base <= address and address + whole <= arena.base + arena.bytes
    starts = sorted(out)
    behind = bisect(starts, address)
    assert behind == 0 or starts[behind - 1] + out[starts[behind - 1]] <= address
    assert behind == len(starts) or address + whole <= starts[behind]
    scribble(address, whole)
    out[address] = whole
    return address


def has_room(arena: Arena, out: dict[int, int], whole: int) -> bool:
    """Whether some aligned place of that size is free: what an arena that always joins must find."""
    places = range(arena.base, arena.base + arena.bytes, whole)
    return any(all(at + size <= place or place + whole <= at for at, size in out.items()) for place in places)


def assert_whole(arena: Arena) -> None:
    """Nothing is out, and every largest cell can be had."""
    assert (arena.live, arena.used_bytes) == (0, 0)
    largest = [arena.take(MOST) for _ in range(arena.bytes // MOST)]
    assert sorted(largest) == list(range(arena.base, arena.base + arena.bytes, MOST))
    assert arena.take(0) is None
    for address in largest:
        arena.give(address)


@settings(max_examples=300, deadline=None)
@given(st.lists(actions, max_size=150))
def test_cells_never_overlap_and_all_come_back_as_one_whole(steps):
    arena = Arena(LEAST)
    out: dict[int, int] = {}
    given_back: list[int] = []
    misuse = 0
    for action, value in steps:
        if action == "take":
            possible = has_room(arena, out, cell_bytes(value))
            assert (take(arena, out, value) is not None) == possible
        elif action == "give" and out:
            address = sorted(out)[value % len(out)]
            del out[address]
            arena.give(address)
            given_back.append(address)
        elif action == "misuse" and arena.base + value not in out:
            arena.give(arena.base + value)
            misuse += 1
        elif action == "again" and given_back and given_back[value % len(given_back)] not in out:
            arena.give(given_back[value % len(given_back)])
            misuse += 1
        assert (arena.live, arena.used_bytes, arena.misuse) == (len(out), sum(out.values()), misuse)
    for address in out:
        arena.give(address)
    assert_whole(arena)


@pytest.mark.parametrize("count", [*range(3), 255, 256, 257, 1280, 2048, 2049, MOST - 1, MOST])
def test_an_arena_lends_all_it_has_and_no_more(count: int) -> None:
    arena = Arena(LEAST)
    out: dict[int, int] = {}
    while take(arena, out, count) is not None:
        pass
    assert arena.live == arena.bytes // cell_bytes(count)
    assert arena.used_bytes == arena.bytes
    for address in random.Random(count).sample(sorted(out), len(out)):
        arena.give(address)
    assert_whole(arena)


@pytest.mark.parametrize("count", [MOST + 1, 2**32, 2**63, 2**64 - 1])
def test_more_than_the_largest_cell_is_refused(count: int) -> None:
    arena = Arena(LEAST)
    assert arena.take(count) is None
    assert_whole(arena)


def test_years_of_random_use_leave_no_cuts() -> None:
    """What leaves holes elsewhere: small and large ones, for different times, at the brink of exhaustion."""
    source = random.Random(1)
    arena = Arena(2**20)
    out: dict[int, int] = {}
    for _ in range(20000):
        if source.random() < 0.6:
            take(arena, out, int(2 ** source.uniform(0, 15)))
        elif out:
            address = source.choice(list(out))
            del out[address]
            arena.give(address)
    assert len(out) > 50
    for address in out:
        arena.give(address)
    assert_whole(arena)


def test_cells_taken_in_a_row_lie_in_a_row_and_are_used_again() -> None:
    arena = Arena(LEAST)
    first = [arena.take(1280) for _ in range(64)]
    assert first == [arena.base + 2048 * at for at in range(64)]
    for address in first:
        arena.give(address)
    assert sorted(arena.take(1280) for _ in range(64)) == first


def test_misuse_changes_nothing() -> None:
    arena = Arena(LEAST)
    address = arena.take(5000)
    scribble(address, 8192)
    wrong = [address + 1, address + UNIT, address + 4096, address - UNIT, address + 8192, 1]
    wrong += [arena.base + arena.bytes, arena.base + 2**17, arena.base - 1, WORD - UNIT, WORD - 1]
    for each in wrong:
        arena.give(each)
    assert (arena.live, arena.used_bytes, arena.misuse) == (1, 8192, len(wrong))
    assert ctypes.string_at(address, 8192) == b"\xff" * 8192
    arena.give(address)
    arena.give(address)
    assert arena.misuse == len(wrong) + 1
    assert_whole(arena)


def test_null_is_no_misuse() -> None:
    arena = Arena(LEAST)
    arena.give(0)
    assert arena.misuse == 0


def test_an_arena_takes_no_cell_of_another() -> None:
    arena, other = Arena(LEAST), Arena(LEAST)
    address = other.take(1000)
    arena.give(address)
    assert (arena.misuse, other.misuse, other.live) == (1, 0, 1)


@pytest.mark.parametrize(
    ("asked", "got"), [(0, LEAST), (1, LEAST), (LEAST, LEAST), (LEAST + 1, 2 * LEAST), (2**26 - 1, 2**26)]
)
def test_its_size_is_the_next_power_of_two(asked: int, got: int) -> None:
    assert Arena(asked).bytes == got


@pytest.mark.parametrize("count", [2**62, 2**63, 2**64 - 1])
def test_an_impossible_size_is_refused(count: int) -> None:
    with pytest.raises(MemoryError):
        Arena(count)


def test_memory_is_touched_only_as_it_is_used() -> None:
    arena = Arena(2**36)
    for _ in range(3):
        arena.give(arena.take(MOST))
    assert arena.touched_bytes == MOST


def test_an_ended_arena_lends_nothing_and_takes_nothing() -> None:
    arena = Arena(LEAST)
    address = arena.take(1)
    arena.end()
    arena.end()
    assert arena.take(1) is None
    arena.give(address)
    assert (arena.live, arena.bytes) == (0, 0)
