"""Ratios of counters: what they come to, and how people see them."""

from typing import Any

import pytest

from layer45.figures import figures
from layer45.ratio import Ratio, with_ratios

SHARE = Ratio(("lost", "late"), ("lost", "late", "good"), "share that is of no use")


def instance(**counters: int) -> dict[str, Any]:
    return {"module": "m", "counters": counters}


def test_sums_are_divided() -> None:
    (told,) = with_ratios([instance(lost=2, late=1, good=9)], {"m": {"share": SHARE}})
    assert told == {**instance(lost=2, late=1, good=9), "ratios": {"share": 0.25}}


def test_nothing_to_divide_by_is_none() -> None:
    (told,) = with_ratios([instance(lost=0, late=0, good=0)], {"m": {"share": SHARE}})
    assert told["ratios"] == {"share": None}


def test_a_ratio_stands_only_where_all_its_counters_do() -> None:
    """In a flow, those that are kept by flow; in a chain from before a reload, those its manifest had."""
    ratios = {"m": {"share": SHARE, "late_share": Ratio(("late",), ("lost",), "")}}
    (told,) = with_ratios([instance(lost=4, late=1)], ratios)
    assert told["ratios"] == {"late_share": 0.25}


def test_each_instance_has_those_of_its_module() -> None:
    other = {"module": "other", "counters": {"lost": 1, "late": 0, "good": 0}}
    told = with_ratios([other, instance(lost=1, late=0, good=0)], {"m": {"share": SHARE}})
    assert [each["ratios"] for each in told] == [{}, {"share": 1.0}]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0.0, "0"), (1.0, "1"), (2 / 3, "0.6667"), (1 / 3000, "0.0003333"),
        (1e-9, "0.000000001"), (12345.6, "12350"), (1 << 64, "18450000000000000000"), (99.999, "100"),
    ],
)  # fmt: skip
def test_people_see_four_digits(value: float | None, text: str) -> None:
    assert dict(figures({"module": "m", "counters": {"n": 7}, "ratios": {"r": value}})) == {"n": 7, "r": text}
