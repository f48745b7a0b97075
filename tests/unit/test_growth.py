# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""Growth expressions: sums, evaluated; what is no sum is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer45.growth import Growth, parse_growth

TYPES = {"id": "bytes", "label": "text", "n": "integer", "mode": "choice"}
VALUES = {"id": b"1234", "label": "é", "n": 7, "mode": "x"}


@pytest.mark.parametrize(
    ("source", "value"),
    [(0, 0), (44, 44), ("44", 44), ("12 + len(id)", 16), ("len( id )+len(id)", 8), ("n", 7), ("n+n + 1", 15), ("len(label)", 2)],
)  # fmt: skip
def test_sums(source: Any, value: int) -> None:
    assert parse_growth(source, TYPES).evaluate(VALUES) == value


WHOLE = "expected bytes 0..65535, or a sum of integers, parameter names and len(parameter)"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (-1, WHOLE), (True, WHOLE), (65536, WHOLE), (1.5, WHOLE), ([], WHOLE),
        ("", 'expected an integer, a parameter name or len(parameter), got ""'),
        ("1 +", 'expected an integer, a parameter name or len(parameter), got ""'),
        ("2 * n", 'expected an integer, a parameter name or len(parameter), got "2 * n"'),
        ("-1", 'expected an integer, a parameter name or len(parameter), got "-1"'),
        ("len(iid)", 'no parameter "iid", did you mean "id"?'),
        ("__import__", 'expected an integer, a parameter name or len(parameter), got "__import__"'),
        ("id", '"id" needs a parameter of type integer; it is bytes'),
        ("len(n)", '"len(n)" needs a parameter of type bytes or text; it is integer'),
        ("mode", '"mode" needs a parameter of type integer; it is choice'),
    ],
)  # fmt: skip
def test_what_is_no_sum(source: Any, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_growth(source, TYPES)
    assert str(caught.value) == expected


@given(
    st.lists(st.integers(0, 9999) | st.sampled_from(["n", "len(id)", "len(label)"]), min_size=1, max_size=6)
)
def test_any_sum(terms: list[Any]) -> None:
    worth = {"n": 7, "len(id)": 4, "len(label)": 2}
    growth = parse_growth(" + ".join(map(str, terms)), TYPES)
    assert isinstance(growth, Growth)
    assert growth.evaluate(VALUES) == sum(worth.get(each, each) for each in terms)
