"""`fec plan`: both models against known values, each other and a simulated path; proposals and refusals."""

import json
import math
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer45 import fec_plan
from layer45.errors import Layer45Error
from layer45.fec_plan import Wish, plan
from layer45.loss_model import Path, block_residual, independent_residual

REFERENCE = [
    (0.05, 10, 3, 9.8e-4), (0.05, 20, 4, 1.29e-3), (0.05, 32, 8, 3.0e-5),
    (0.10, 10, 3, 1.11e-2), (0.10, 20, 4, 1.93e-2), (0.10, 32, 8, 3.7e-3),
]  # fmt: skip
BLOCKS = 60_000
CONFIDENT = 3.89  # standard deviations: 99.99 %


def test_limits_are_those_of_the_codec() -> None:
    from layer45.fastpath import symbol_block as codec

    assert fec_plan.MOST_SOURCES == codec.MOST_SOURCES
    assert fec_plan.MOST_REPAIRS == codec.MOST_REPAIRS
    assert fec_plan.MOST_SYMBOLS == codec.MOST_SYMBOLS


@pytest.mark.parametrize(("loss", "k", "m", "expected"), REFERENCE)
def test_the_values_of_the_issue(loss: float, k: int, m: int, expected: float) -> None:
    assert independent_residual(loss, k, m) == pytest.approx(expected, rel=0.02)


@settings(deadline=None)
@given(st.floats(0.001, 0.6), st.integers(1, 60), st.integers(0, 30), st.integers(1, 5))
def test_without_memory_the_two_states_are_the_binomial(loss, k, m, interleave):
    expected = independent_residual(loss, k, m)
    assert block_residual(Path(loss), k, m, interleave) == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert block_residual(Path(loss, 1 / (1 - loss)), k, m) == pytest.approx(expected, rel=1e-6, abs=1e-15)


@settings(deadline=None)
@given(st.floats(0.01, 0.3), st.floats(2, 20), st.integers(1, 7), st.integers(0, 4), st.integers(1, 4))
def test_two_states_by_summing_over_every_pattern(loss, burst, k, m, interleave):
    path = Path(loss, burst)
    total = 0.0
    for pattern in product((False, True), repeat=k + m):
        chance, previous = (loss if pattern[0] else 1 - loss), pattern[0]
        for at, lost in enumerate(pattern[1:], 1):
            after = path.loss_after(previous, interleave if at < k else 1)
            chance *= after if lost else 1 - after
            previous = lost
        if sum(pattern) > m:
            total += chance * sum(pattern[:k]) / k
    assert block_residual(path, k, m, interleave) == pytest.approx(total, rel=1e-9, abs=1e-15)


def walk(path: Path, count: int, seed: int) -> np.ndarray:
    """Which packets a path loses: run after run of lost and passed ones, their lengths geometric."""
    source = np.random.default_rng(seed)
    if not path.burst:
        return source.random(count) < path.loss
    end_burst = 1 / path.burst
    end_peace = path.loss * end_burst / (1 - path.loss)
    runs = int(count * end_burst * path.loss * 2) + 1000
    lengths = np.stack([source.geometric(end_peace, runs), source.geometric(end_burst, runs)], axis=1).ravel()
    lost = np.repeat(np.tile([False, True], runs), lengths)
    assert len(lost) >= count
    return lost[:count]


def order(k: int, m: int, interleave: int) -> list[int]:
    """Whose packets leave, one by one, in a group of interleaved blocks: a block ends with its repairs."""
    sources = [block for _ in range(k) for block in range(interleave)]
    tail = [block for last in range(interleave) for block in [last] * (1 + m)]
    return sources[: -interleave or None] + tail


@pytest.mark.parametrize("burst", [0, 2, 5])
@pytest.mark.parametrize(("k", "m", "interleave"), [(10, 3, 1), (20, 4, 1), (10, 3, 4), (5, 2, 2)])
def test_a_simulated_path_loses_what_the_models_say(k: int, m: int, interleave: int, burst: float) -> None:
    path = Path(0.1, burst)
    blocks = np.array(order(k, m, interleave))
    lost = walk(path, BLOCKS * len(blocks), 7).reshape(BLOCKS, -1)
    own = lost[:, blocks == 0]  # the first block of each group: sources, then repairs
    unmended = np.where(own.sum(axis=1) > m, own[:, :k].sum(axis=1), 0) / k
    error = unmended.std() / math.sqrt(BLOCKS)
    assert abs(unmended.mean() - block_residual(path, k, m, interleave)) <= CONFIDENT * error + 1e-9


def test_of_interleaved_blocks_the_others_fare_no_worse() -> None:
    k, m, interleave, path = 10, 3, 4, Path(0.1, 5)
    blocks = np.array(order(k, m, interleave))
    lost = walk(path, BLOCKS * len(blocks), 8).reshape(BLOCKS, -1)
    expected = block_residual(path, k, m, interleave)
    for block in range(interleave):
        own = lost[:, blocks == block]
        unmended = np.where(own.sum(axis=1) > m, own[:, :k].sum(axis=1), 0) / k
        assert unmended.mean() <= expected + CONFIDENT * unmended.std() / math.sqrt(BLOCKS)


def wish(**changes: float) -> Wish:
    values = {"loss": 0.05, "target": 0.001, "rate_pps": 300, "packet_bytes": 1200, "latency_ms": 50}
    return Wish(**{**values, **changes})


def test_the_plan_of_the_issue() -> None:
    found = plan(wish())
    assert (found.source_symbols, found.repair_symbols, found.interleave) == (15, 4, 1)
    assert found.deadline_ms == 50
    assert found.residual_loss == pytest.approx(independent_residual(0.05, 15, 4))
    assert found.overhead == pytest.approx((15 * 6 + 4 * 1209) / (15 * 1200))


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.005, 0.3), st.floats(0.001, 0.9), st.floats(20, 2000), st.floats(5, 100),
    st.one_of(st.just(0.0), st.floats(1.6, 8)),
)  # fmt: skip
def test_a_plan_keeps_every_limit_and_no_smaller_m_would_do(loss, part, rate, latency, burst):
    asked = wish(loss=loss, target=loss * part, rate_pps=rate, latency_ms=latency, burst=burst)
    try:
        found = plan(asked)
    except Layer45Error as error:
        assert len(str(error).splitlines()) == 1
        return
    k, m, interleave = found.source_symbols, found.repair_symbols, found.interleave
    assert 1 <= m <= k
    assert k * interleave <= rate * latency / 1000 + 1e-6
    assert 1 <= found.deadline_ms <= latency
    assert found.residual_loss == pytest.approx(block_residual(Path(loss, burst), k, m, interleave))
    assert found.residual_loss <= asked.target < block_residual(Path(loss, burst), k, m - 1, interleave)


def test_no_other_code_of_the_window_is_cheaper() -> None:
    asked = wish(burst=2.0, rate_pps=400)
    found = plan(asked)
    cheaper = [
        (k, m, d) for k in range(1, 21) for d in range(1, 20 // k + 1) for m in range(k + 1)
        if m / k < found.repair_symbols / found.source_symbols
        and block_residual(asked.path, k, m, d) <= asked.target
    ]  # fmt: skip
    assert cheaper == []


def test_more_latency_never_costs_more() -> None:
    costs = [plan(wish(latency_ms=each)).overhead for each in (20, 30, 50, 80, 150, 400)]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latency_ms": 3}, "the least is --latency 4ms"),
        ({"latency_ms": 4, "target": 1e-4}, "the best is 0.25 %, with 1 source and 1 repair symbols"),
        ({"most_overhead": 0.05}, "the best is"),
        ({"target": 0.05}, "no FEC is needed"),
        ({"burst": 1.01}, "at least 1.05 packets"),
    ],
)
def test_impossible_wishes_are_one_line_with_the_best_there_is(changes: dict[str, float], said: str) -> None:
    with pytest.raises(Layer45Error) as caught:
        plan(wish(**changes))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def fec_plan_command(*words: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "layer45",
        "fec",
        "plan",
        "--target",
        "0.1%",
        "--latency",
        "50ms",
        *words,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_of_the_issue() -> None:
    done = fec_plan_command("--loss", "5%", "--rate", "300pps", "--packet", "1200")
    assert (done.returncode, done.stderr) == (0, "")
    assert "source_symbols = 15, repair_symbols = 4, interleave = 1, deadline_ms = 50" in done.stdout


def test_json_and_a_rate_in_bits() -> None:
    done = fec_plan_command("--loss", "0.05", "--rate", "2880kbit", "--burst", "2", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["wish"]["rate_pps"] == 300
    assert document["plan"]["residual_loss"] <= 0.001
    assert document["plan"]["residual_loss_independent"] < document["plan"]["residual_loss"]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--loss", "5 apples", "--rate", "300pps"], 2),
        (["--loss", "0%", "--rate", "300pps"], 2),
        (["--loss", "100%", "--rate", "300pps"], 2),
        (["--loss", "5%", "--rate", "300"], 2),
        (["--loss", "5%", "--rate", "0pps"], 2),
        (["--loss", "5%", "--rate", "300pps", "--latency", "10us"], 2),
        (["--loss", "5%", "--rate", "300pps", "--packet", "0"], 2),
        (["--loss", "5%", "--rate", "300pps", "--burst", "nan"], 2),
        (["--loss", "5%", "--rate", "300pps", "--burst", "inf"], 1),
        (["--loss", "5%"], 2),
        (["--loss", "60%", "--rate", "300pps"], 1),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], status: int) -> None:
    done = fec_plan_command(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert len(done.stderr.splitlines()) == 1
