"""The regression guard's rule, on rounds like those that it gets."""

import pytest

from perf.comparison import Line, compare, summary, table

QUIET = [1.00, 1.01, 0.99, 1.02, 1.00, 0.98, 1.01, 1.00]
LOUD = [1.00, 1.40, 0.70, 1.20, 0.90, 1.30, 0.80, 1.00]


def times(rounds: list[float], factor: float) -> list[float]:
    return [each * factor for each in rounds]


def compared(now: list[float], stored: list[float], more_is_better: bool = False) -> Line:
    (line,) = compare({"x": now}, {"x": stored}, {"x": more_is_better})
    return line


@pytest.mark.parametrize(
    ("factor", "more_is_better", "verdict"),
    [
        (1.00, False, "same"),
        (1.04, False, "same"),  # less than counts
        (1.10, False, "worse"),
        (0.90, False, "better"),
        (1.10, True, "better"),
        (0.90, True, "worse"),
    ],
)
def test_what_both_spreads_do_not_explain(factor: float, more_is_better: bool, verdict: str) -> None:
    line = compared(times(QUIET, factor), QUIET, more_is_better)
    assert (line.verdict, line.change) == (verdict, pytest.approx(factor - 1))


def test_a_change_within_the_noise_of_this_run_is_not_one() -> None:
    assert compared(times(LOUD, 1.2), QUIET).verdict == "noisy"


def test_a_change_within_the_noise_of_the_stored_one_is_not_one() -> None:
    assert compared(times(QUIET, 1.2), LOUD).verdict == "noisy"


def test_a_change_beyond_all_noise_is_one_however_loud() -> None:
    assert compared(times(LOUD, 2.5), LOUD).verdict == "worse"


def test_one_wild_round_neither_makes_a_change_nor_hides_one() -> None:
    assert compared([*QUIET, 9.0], QUIET).verdict == "same"
    assert compared([*times(QUIET, 1.1), 9.0], [*QUIET, 9.0]).verdict == "worse"


def test_what_is_not_stored_is_new() -> None:
    (line,) = compare({"x": QUIET}, {}, {"x": False})
    assert (line.verdict, line.stored, line.change) == ("new", None, None)


def test_what_is_not_measured_is_told_with_what_it_was() -> None:
    (line,) = compare({"x": QUIET[:2]}, {"x": QUIET}, {"x": False})
    assert (line.verdict, line.now, line.stored) == ("not measured", None, 1.0)


def test_table_and_summary_name_what_is_worse() -> None:
    now = {"a": times(QUIET, 1.1), "b": QUIET}
    lines = compare(now, {"a": QUIET, "b": QUIET}, {"a": False, "b": False, "c": False})
    assert summary(lines) == "1 worse, 1 same, 1 not measured; worse: a"
    rows = [row.split() for row in table(lines)]
    assert rows[1][:4] == ["a", "1.100", "1.000", "+10.0%"]
    assert [row[-1] for row in rows[1:]] == ["worse", "same", "measured"]
