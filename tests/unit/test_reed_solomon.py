"""Reed-Solomon: RFC 5510's coefficients, both arithmetics, every erasure pattern a code can mend."""

import random
import subprocess
from collections.abc import Iterable, Iterator
from itertools import combinations
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer45.fastpath import symbol_block
from layer45.fastpath.symbol_block import (
    MOST_REPAIRS,
    MOST_SOURCES,
    MOST_SYMBOLS,
    Block,
    decode,
    encode,
    open_codes,
    rows,
    use_isal,
)

from . import reed_solomon_reference as reference

HAS_ISAL = use_isal(True)
ARITHMETICS = [True, False] if HAS_ISAL else [False]
EXTREMES = [(1, 0), (1, 1), (1, 100), (200, 0), (200, 55), (155, 100), (199, 56)]


@pytest.fixture(params=ARITHMETICS, ids=lambda isal: "isal" if isal else "tables", autouse=True)
def arithmetic(request: pytest.FixtureRequest) -> Iterator[bool]:
    assert use_isal(request.param) == request.param
    yield request.param
    use_isal(True)


@st.composite
def codes(draw: st.DrawFn, most: int = MOST_SYMBOLS) -> tuple[int, int]:
    k = draw(st.integers(1, min(MOST_SOURCES, most)))
    return k, draw(st.integers(0, min(MOST_REPAIRS, most - k)))


def make_block(k: int, length: int, seed: int) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(length) for _ in range(k)]


def mixed_block(k: int, most: int, seed: int) -> list[bytes]:
    """Sources of many lengths: none, some, all of `most` bytes."""
    source = random.Random(seed)
    return [source.randbytes(source.choice([0, most, source.randint(0, most)])) for _ in range(k)]


def padded(sources: list[bytes], length: int) -> list[bytes]:
    return [source.ljust(length, b"\0") for source in sources]


def used_block(k: int, m: int, length: int, symbols: Iterable[tuple[int, bytes]]) -> Block:
    """A block with these in it, after others were: no other symbol's place is zero."""
    block = Block(k, m, length)
    for position in range(k + m):
        block.put(position, b"?" * length)
    for position, symbol in symbols:
        block.put(position, symbol)
    return block


def received(symbols: list[bytes], k: int, seed: int) -> list[tuple[int, bytes]]:
    """Any k of them, in any order."""
    positions = random.Random(seed).sample(range(len(symbols)), k)
    return [(position, symbols[position]) for position in positions]


def missing(sources: list[bytes], kept: list[tuple[int, bytes]]) -> dict[int, bytes]:
    return {at: each for at, each in enumerate(sources) if at not in dict(kept)}


def test_isal_is_built_in_where_it_is_installed() -> None:
    asked = subprocess.run(["pkg-config", "--exists", "libisal"], check=False)
    assert (asked.returncode == 0) == HAS_ISAL, "compile again: rm fastpath/reed_solomon.*.so; make build"


def test_the_check_vector() -> None:
    assert [row.hex(" ") for row in rows(4, 7)] == ["40 78 36 0f", "e7 d2 57 63", "e5 bf 07 5c"]


@given(codes(60))
def test_rows_are_those_of_the_reference(code: tuple[int, int]) -> None:
    k, m = code
    assert [list(row) for row in rows(k, k + m)] == [
        reference.coefficients(list(range(k)), k + repair) for repair in range(m)
    ]


@pytest.mark.parametrize(("k", "m"), EXTREMES)
def test_rows_of_the_largest_codes_too(k: int, m: int) -> None:
    found = rows(k, k + m)
    assert len(found) == m
    for repair in {0, m // 2, m - 1} if m else ():
        assert list(found[repair]) == reference.coefficients(list(range(k)), k + repair)


@settings(max_examples=60, deadline=None)
@given(codes(40), st.integers(1, 200), st.integers(0, 2**32))
def test_repair_and_recovered_symbols_are_those_of_the_reference(code, length, seed):
    k, m = code
    sources = make_block(k, length, seed)
    repairs = encode(sources, m)
    assert repairs == reference.encode(sources, m)
    kept = received(sources + repairs, k, seed)
    assert decode(k, kept) == reference.decode(k, dict(kept)) == missing(sources, kept)


@settings(max_examples=150, deadline=None)
@given(codes(), st.integers(1, 1500), st.integers(0, 2**32))
def test_any_k_of_n_symbols_give_the_block_back(code, length, seed):
    k, m = code
    sources = make_block(k, length, seed)
    kept = received(sources + encode(sources, m), k, seed)
    assert decode(k, kept) == missing(sources, kept)


@settings(max_examples=100, deadline=None)
@given(codes(), st.integers(1, 1500), st.integers(0, 2**32))
def test_all_ways_to_encode_agree_in_both_arithmetics(code, length, seed):
    k, m = code
    block = Block(k, m, length)
    for position, symbol in enumerate(make_block(k, length, seed)):
        block.put(position, symbol)
    found = set()
    for isal in ARITHMETICS:
        use_isal(isal)
        for way in (block.encode, block.encode_short, block.add_all):
            for repair in range(m):
                block.put(k + repair, b"\xff" * length)
            way()
            found.add(tuple(block.get(k + repair) for repair in range(m)))
    assert len(found) == 1


@settings(max_examples=100, deadline=None)
@given(codes(), st.integers(0, 1500), st.integers(0, 2**32))
def test_short_symbols_in_any_order_add_up_to_the_padded_block(code, most, seed):
    k, m = code
    sources = mixed_block(k, most, seed)
    block = Block(k, m, most)
    for position in random.Random(seed).sample(range(k), k):
        block.put(position, sources[position])
        block.add(position)
    assert [block.get(k + repair) for repair in range(m)] == encode(padded(sources, most), m)


@settings(max_examples=100, deadline=None)
@given(codes(), st.integers(0, 1500), st.integers(0, 200), st.integers(0, 2**32))
def test_sources_in_their_own_lengths_encode_as_padded_ones_do(code, most, more, seed):
    k, m = code
    sources = mixed_block(k, most, seed)
    expected = encode(padded(sources, most + more), m)
    for isal in ARITHMETICS:
        use_isal(isal)
        for way in (Block.encode, Block.encode_short, Block.add_all):
            block = used_block(k, m, most + more, enumerate(sources))
            way(block)
            assert [block.get(k + repair) for repair in range(m)] == expected
            assert [block.get(position) for position in range(k)] == sources


@settings(max_examples=100, deadline=None)
@given(codes(), st.integers(0, 1500), st.integers(0, 200), st.integers(0, 2**32))
def test_sources_in_their_own_lengths_decode_as_padded_ones_do(code, most, more, seed):
    k, m = code
    sources = mixed_block(k, most, seed)
    whole = padded(sources, most + more)
    kept = received(sources + encode(whole, m), k, seed)
    lost = missing(whole, kept)
    for isal in ARITHMETICS:
        use_isal(isal)
        block = used_block(k, m, most + more, kept)
        assert block.decode([position for position, _ in kept]) == list(lost)
        assert {gap: block.get(gap) for gap in lost} == lost
        assert all(block.get(position) == symbol for position, symbol in kept)


@settings(max_examples=60, deadline=None)
@given(codes(40), st.integers(0, 200), st.integers(0, 2**32))
def test_sources_in_their_own_lengths_give_what_the_reference_gives(code, most, seed):
    k, m = code
    sources = mixed_block(k, most, seed)
    whole = padded(sources, max(map(len, sources)))
    repairs = encode(sources, m)
    assert repairs == reference.encode(whole, m)
    kept = received(whole + repairs, k, seed)
    block = used_block(k, m, len(whole[0]), received(sources + repairs, k, seed))
    gaps = block.decode([position for position, _ in kept])
    assert {gap: block.get(gap) for gap in gaps} == reference.decode(k, dict(kept))


@pytest.mark.parametrize("longest", [0, 1, 64, 65])
def test_a_block_of_empty_sources_is_zeros(longest: int) -> None:
    for way in (Block.encode, Block.encode_short):
        block = used_block(6, 3, longest, [(position, b"") for position in range(6)])
        way(block)
        assert [block.get(6 + repair) for repair in range(3)] == [bytes(longest)] * 3
        assert block.decode([7, 1, 8, 3, 4, 6]) == [0, 2, 5]
        assert [block.get(gap) for gap in (0, 2, 5)] == [bytes(longest)] * 3


@pytest.mark.parametrize("length", [*range(70), 127, 128, 129, 1199, 1200, 1500, 9000, 65510])
def test_every_length(length: int) -> None:
    sources = make_block(5, length, length)
    kept = list(enumerate(sources + encode(sources, 4)))[4:]
    assert decode(5, kept) == missing(sources, kept)


@pytest.mark.parametrize("k", range(1, 8))
@pytest.mark.parametrize("m", range(5))
def test_small_codes_mend_every_pattern(k: int, m: int) -> None:
    sources = make_block(k, 3, k)
    symbols = list(enumerate(sources + encode(sources, m)))
    for kept in combinations(symbols, k):
        assert decode(k, list(kept)) == missing(sources, list(kept))


@pytest.mark.parametrize(("k", "m"), [*EXTREMES, (100, 100), (128, 100), (10, 3), (20, 4), (32, 8)])
def test_large_codes_mend_random_patterns_and_the_worst(k: int, m: int) -> None:
    sources = make_block(k, 40, k)
    symbols = sources + encode(sources, m)
    for seed in range(50):
        kept = received(symbols, k, seed)
        assert decode(k, kept) == missing(sources, kept)
    for last in (list(enumerate(symbols))[m:], list(enumerate(symbols))[-k:][::-1]):
        assert decode(k, last) == missing(sources, last)


def test_fewer_repair_symbols_are_the_first_of_more() -> None:
    sources = make_block(20, 100, 1)
    assert encode(sources, 3) == encode(sources, 8)[:3]


def test_nothing_behind_a_recovered_symbol_or_beside_it_changes() -> None:
    sources = make_block(6, 65, 2)
    block = Block(6, 3, 65)
    for position, symbol in enumerate(sources):
        block.put(position, symbol)
    block.encode()
    repairs = [block.get(6 + repair) for repair in range(3)]
    for position in (1, 4):
        block.put(position, b"?" * 65)
    assert block.decode([8, 0, 2, 3, 6, 5]) == [1, 4]
    assert [block.get(position) for position in range(9)] == sources + repairs


def test_more_losses_than_repair_symbols_are_refused() -> None:
    sources = make_block(10, 50, 3)
    symbols = list(enumerate(sources + encode(sources, 3)))
    with pytest.raises(ValueError, match="9 symbols, not 10"):
        decode(10, symbols[4:])
    with pytest.raises(ValueError, match="11 symbols, not 10"):
        decode(10, symbols[:11])


def test_duplicates_are_refused() -> None:
    symbols = list(enumerate(make_block(4, 50, 4)))
    with pytest.raises(ValueError, match="twice"):
        decode(4, [*symbols[:3], symbols[0]])
    repair = (5, b"?" * 50)
    with pytest.raises(ValueError, match="twice"):
        decode(4, [*symbols[:2], repair, repair])


@pytest.mark.parametrize("position", [104, 255, 256, 2**31])
def test_symbols_out_of_range_are_refused(position: int) -> None:
    symbols = list(enumerate(make_block(4, 50, 4)))
    with pytest.raises(ValueError):
        decode(4, [*symbols[:3], (position, b"?" * 50)])


@given(st.binary(max_size=MOST_SYMBOLS))
def test_hostile_numbers_are_refused_and_no_others(positions: bytes) -> None:
    k = len(positions)
    fine = 1 <= k <= MOST_SOURCES and len(set(positions)) == k
    fine = fine and max(positions) < min(k + MOST_REPAIRS, MOST_SYMBOLS)
    expected = sorted(set(range(k)) - set(positions)) if fine else None
    assert symbol_block.missing(k, positions) == expected


@given(codes(), st.integers(0, 2**32))
def test_the_missing_are_those_not_received(code: tuple[int, int], seed: int) -> None:
    k, m = code
    positions = random.Random(seed).sample(range(k + m), k)
    assert symbol_block.missing(k, bytes(positions)) == sorted(set(range(k)) - set(positions))


@pytest.mark.parametrize(
    ("k", "m"), [(0, 0), (0, 5), (201, 0), (1, 101), (200, 56), (156, 100), (2**32 - 1, 2)]
)
def test_codes_out_of_range_are_refused(k: int, m: int) -> None:
    with pytest.raises(ValueError, match="no code"):
        Block(k, m, 10)
    with pytest.raises((ValueError, OverflowError)):
        rows(k, k + m)
    assert open_codes() == 0


def test_a_symbol_longer_than_the_blocks_is_refused() -> None:
    block = Block(2, 1, 3)
    with pytest.raises(ValueError, match="4 bytes are more than 3"):
        block.put(0, b"abcd")


def test_shorter_symbols_are_decoded_as_if_zeros_followed() -> None:
    assert decode(2, [(0, b"ab"), (2, b"abc")]) == decode(2, [(0, b"ab\0"), (2, b"abc")])


def test_equal_codes_share_their_tables_and_all_are_freed() -> None:
    blocks = [Block(k, 4, 10) for k in (20, 10, 20, 30, 10)]
    assert open_codes() == 3
    del blocks[2]
    assert open_codes() == 3
    del blocks[0]
    assert open_codes() == 2
    blocks.clear()
    assert open_codes() == 0


def test_threads_may_open_and_use_the_same_codes() -> None:
    sources = make_block(20, 700, 5)
    expected, wrong = encode(sources, 8), []

    def work(seed: int) -> None:
        for m in random.Random(seed).choices(range(9), k=100):
            if encode(sources, m) != expected[:m]:
                wrong.append((seed, m))

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert open_codes() == 0
