"""What module fec adapts by: its table against the model, and its controller on simulated paths."""

import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer45.loss_model import Path, block_residual
from layer45.modules.fec.adaptive_shell import LEVELS_BYTES, NONE, STATE_BYTES, Controller, Levels

from .lossy_path import MILLISECOND, SECOND, Lane

INTERLEAVES = (1, 2, 4, 8, 16)
MEMORIES = range(9)
LOSSES = range(37)
TARGET = 0.001
EXACT = 1e-9  # relative: the order of a sum
WRAP, NUMBERS = 2**32, 2**24


def residual(levels: Levels, loss_at: int, memory_at: int, k: int, m: int, interleave: int) -> float:
    loss, memory = levels.losses[loss_at], levels.memories[memory_at]
    return block_residual(Path(loss, 1 / ((1 - memory) * (1 - loss)) if memory else 0), k, m, interleave)


# The table


def test_it_all_fits_where_it_is_to_stand() -> None:
    assert LEVELS_BYTES < 16384
    assert STATE_BYTES <= 64


def test_the_grid() -> None:
    levels = Levels(10, 3, 16, TARGET)
    assert (len(levels.losses), len(levels.memories)) == (len(LOSSES), len(MEMORIES))
    assert levels.losses == sorted(levels.losses)
    assert levels.memories == sorted(levels.memories)
    assert levels.losses[:2] == [0, 0.0001]
    assert levels.losses[-1] == pytest.approx(0.6)
    assert (levels.memories[0], levels.memories[-1]) == (0, 0.97)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 200), st.integers(0, 100), st.floats(-6, -0.4), st.sampled_from(LOSSES),
    st.sampled_from(MEMORIES), st.sampled_from(range(5)),
)  # fmt: skip
def test_an_entry_is_the_fewest_repairs_by_the_model(k, most, log_target, loss_at, memory_at, power):
    target = 10**log_target
    levels = Levels(k, most, 16, target)
    found = levels.entry(loss_at, memory_at, power)
    where = levels, loss_at, memory_at, k
    if found == NONE:
        assert residual(*where, most, 2**power) > target * (1 - EXACT)
    else:
        assert found <= most
        assert residual(*where, found, 2**power) <= target * (1 + EXACT)
        assert found == 0 or residual(*where, found - 1, 2**power) > target * (1 - EXACT)


@pytest.mark.parametrize(
    ("most", "allowed"), [(0, [1]), (1, [1]), (3, [1, 2]), (8, [1, 2, 4, 8]), (16, [*INTERLEAVES])]
)
def test_interleaves_are_powers_of_two_up_to_the_most(most: int, allowed: list[int]) -> None:
    levels = Levels(10, 10, most, TARGET)
    assert levels.interleaves == allowed
    chosen = {levels.choose(loss, memory)[1] for loss in levels.losses for memory in levels.memories}
    assert chosen <= set(allowed)


@pytest.mark.parametrize(("k", "most"), [(20, 20), (10, 4), (3, 0)])
def test_the_choice_is_the_fewest_repairs_with_the_smallest_interleave(k: int, most: int) -> None:
    levels = Levels(k, most, 16, TARGET)
    for loss_at, memory_at in product(LOSSES, MEMORIES):
        entries = [levels.entry(loss_at, memory_at, power) for power in range(5)]
        chosen = levels.choose(levels.losses[loss_at], levels.memories[memory_at])
        if min(entries) != NONE:
            assert chosen == (min(entries), INTERLEAVES[entries.index(min(entries))])
            continue
        left = [residual(levels, loss_at, memory_at, k, most, each) for each in INTERLEAVES]
        assert chosen[0] == most
        assert left[INTERLEAVES.index(chosen[1])] <= min(left) * (1 + EXACT)


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_the_choice_rounds_up(loss, memory):
    levels = Levels(20, 20, 16, TARGET)
    loss_up = next((each for each in levels.losses if each >= loss), levels.losses[-1])
    memory_up = next((each for each in levels.memories if each >= memory), levels.memories[-1])
    assert levels.choose(loss, memory) == levels.choose(loss_up, memory_up)
    found = levels.entry(levels.losses.index(loss_up), levels.memories.index(memory_up), 2)
    expected = 20 if found == NONE else found
    assert levels.repairs(loss, memory, 4) == levels.repairs(loss, memory, 7) == expected


# The controller on a path


@pytest.mark.parametrize(("rate_pps", "reports"), [(500, 4), (2000, 2), (10_000, 1)])
def test_a_step_from_nothing_to_a_tenth_is_answered_within_few_reports(rate_pps: int, reports: int) -> None:
    levels = Levels(20, 20, 1, TARGET)
    lane = Lane(levels, 20, rate_pps=rate_pps)
    assert lane.drive(50, 0).repairs[-1] == 1
    risen = lane.drive(reports, 0.1)
    assert risen.repairs[-1] >= levels.repairs(0.1, 0, 1)
    steady = lane.drive(200, 0.1)
    assert steady.residual <= TARGET
    assert steady.mean_repairs <= levels.repairs(0.1, 0, 1) + 2


@pytest.mark.parametrize("loss", [0.005, 0.02, 0.05, 0.15])
@pytest.mark.parametrize("memory", [0, 0.4])
def test_a_constant_loss_stays_within_the_target_at_a_fair_price(loss: float, memory: float) -> None:
    levels = Levels(20, 20, 16, TARGET)
    lane = Lane(levels, 20, rate_pps=2000)
    lane.drive(25, loss, memory)
    steady = lane.drive(300, loss, memory)
    assert steady.residual <= TARGET
    assert steady.mean_repairs <= levels.choose(loss, memory)[0] * 1.5 + 1
    if memory == 0:
        assert set(steady.interleaves) == {1}


def test_it_comes_down_slowly() -> None:
    lane = Lane(Levels(20, 20, 1, TARGET), 20)
    high = lane.drive(50, 0.1).repairs[-1]
    calm = lane.drive(150, 0)
    assert calm.first(high // 2) >= 1 * 5  # seconds, each of five reports
    assert calm.first(high // 2) <= 12 * 5
    assert calm.first(1) <= 25 * 5
    assert max(before - after for before, after in zip(calm.repairs, calm.repairs[1:], strict=False)) <= 1


@pytest.mark.parametrize("report_ms", [50, 200, 1000])
def test_how_slowly_is_a_matter_of_time_and_not_of_reports(report_ms: int) -> None:
    lane = Lane(Levels(20, 20, 1, TARGET), 20, rate_pps=5000, report_ms=report_ms)
    high = lane.drive(20_000 // report_ms, 0.1).losses[-1]
    left = lane.drive(10_000 // report_ms, 0).losses[-1] / high
    assert math.exp(-2.5) < left < math.exp(-1.9), "two time constants, or a little more"


def test_bursts_are_met_with_interleaving_where_it_saves_repairs() -> None:
    results = {}
    for most in (1, 16):
        lane = Lane(Levels(20, 20, most, TARGET), 20, rate_pps=5000)
        lane.drive(25, 0.02, 0.7)
        results[most] = lane.drive(300, 0.02, 0.7)
        assert results[most].residual <= TARGET
    assert set(results[1].interleaves) == {1}
    assert min(results[16].interleaves) >= 4
    assert results[16].mean_repairs < 0.5 * results[1].mean_repairs


def test_interleaving_ends_when_the_losses_do() -> None:
    lane = Lane(Levels(20, 20, 16, TARGET), 20, rate_pps=5000)
    assert lane.drive(100, 0.02, 0.7).interleaves[-1] > 1
    calm = lane.drive(300, 0)
    assert (calm.repairs[-1], calm.interleaves[-1]) == (1, 1)
    assert sum(a != b for a, b in zip(calm.interleaves, calm.interleaves[1:], strict=False)) <= 5


def test_a_loss_now_and_then_is_no_step() -> None:
    lane = Lane(Levels(10, 10, 1, TARGET), 10)
    lane.drive(100, 0)
    assert max(lane.drive(400, 0.0003).repairs) <= 2


def test_a_slow_flow_gathers_before_it_decides() -> None:
    lane = Lane(Levels(10, 10, 1, TARGET), 10, repairs=7, rate_pps=50)
    assert lane.drive(3, 0).repairs == [7, 7, 7]
    assert lane.drive(20, 0).repairs[-1] < 7
    assert lane.drive(600, 0.05).residual <= 3 * TARGET


def test_the_most_and_the_least() -> None:
    none = Lane(Levels(10, 0, 1, TARGET), 10, repairs=0)
    assert none.drive(30, 0.2).repairs[-1] == 0
    some = Lane(Levels(10, 4, 1, TARGET), 10)
    assert some.drive(30, 0.4).repairs[-1] == 4
    assert some.drive(300, 0).repairs[-1] == 1


# The controller and single reports


def control(**changes: int) -> Controller:
    return Controller(Levels(20, 20, 16, TARGET), **{"k": 20, "repairs": 3, **changes})


def at(milliseconds: int) -> int:
    return SECOND + milliseconds * MILLISECOND


def test_an_old_or_a_repeated_report_is_refused_and_changes_nothing() -> None:
    controller = control()
    assert controller.report(7, 1000, 0, 0, at(0))
    before = controller.loss, controller.repairs
    for number in (7, 6, 0, (7 + NUMBERS // 2) % NUMBERS, NUMBERS - 1):
        assert not controller.report(number, 3000, 900, 900, at(200))
    assert (controller.loss, controller.repairs) == before
    assert controller.report(8, 1200, 20, 20, at(200))
    assert controller.repairs > before[1]


def test_a_replay_after_a_silence_moves_nothing_by_itself() -> None:
    controller = control()
    assert controller.report(7, 100_000, 0, 0, at(0))
    assert controller.report(8, 100_200, 0, 0, at(200))
    assert not controller.report(3, 90_000, 9000, 9000, at(5100))
    before = controller.loss
    assert controller.report(3, 90_000, 9000, 9000, at(5300))
    assert controller.loss == before
    assert not controller.report(3, 90_000, 9000, 9000, at(60_000)), "and never the very same one"


def test_a_peer_that_began_again_is_heard() -> None:
    controller = control()
    assert controller.report(5000, 900_000, 9000, 9000, at(0))
    assert not controller.report(1, 200, 0, 0, at(200))
    assert controller.report(27, 3000, 400, 400, at(5400))
    assert controller.loss > 0.1


def test_counts_that_go_backwards_begin_anew() -> None:
    controller = control()
    assert controller.report(1, 1000, 0, 0, at(0))
    assert controller.report(2, 300, 30, 30, at(200))
    assert controller.loss == pytest.approx(0.1, abs=0.03)
    assert controller.report(3, 600, 60, 60, at(400))
    assert controller.loss == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("counts", [(100, 200, 50), (1000, 10, 20), (2**31, 0, 0), (70_000, 7000, 7000)])
def test_a_first_report_that_is_not_plausible_is_only_a_beginning(counts: tuple[int, int, int]) -> None:
    controller = control()
    assert controller.report(1, *counts, at(0))
    assert controller.repairs == 3
    assert controller.report(2, *((each + 200) % WRAP for each in counts[:1]), *counts[1:], at(200))
    assert controller.repairs == 1


def test_counts_and_numbers_wrap() -> None:
    plain, wrapped = control(), control()
    for step in range(30):
        counts = 200 * step, 10 * step, 8 * step
        assert plain.report(step, *counts, at(200 * step))
        shifted = [(WRAP - 1000 + each) % WRAP for each in counts]
        assert wrapped.report((NUMBERS - 10 + step) % NUMBERS, *shifted, at(200 * step))
    assert (wrapped.repairs, wrapped.interleave) == (plain.repairs, plain.interleave)
    assert wrapped.loss == pytest.approx(plain.loss)


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, WRAP - 1)] * 4, st.integers(0, 20_000)), max_size=40), st.booleans()
)
def test_no_report_makes_it_leave_its_limits(reports, near):
    controller, now_ns = control(repairs=3), 0
    for number, *counts, apart_ms in reports:
        now_ns += apart_ms * MILLISECOND
        small = [each % 2000 for each in counts] if near else counts
        controller.report(number % NUMBERS, *small, now_ns)
        assert 1 <= controller.repairs <= 20
        assert controller.interleave in INTERLEAVES
        assert 0 <= controller.memory < 1
        assert 0 <= controller.loss <= 1
