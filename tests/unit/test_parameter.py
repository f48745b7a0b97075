# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""Values of parameters: every type, its limits, and what is said of wrong ones."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer45.parameter import INTEGER_MAX, INTEGER_MIN, Parameter

SMALL = Parameter("n", "integer", "", unit="ms", minimum=1, maximum=1000)
RATE = Parameter("n", "number", "", minimum=0, maximum=1.5)
NAME = Parameter("n", "text", "", min_bytes=1, max_bytes=4)
KEY = Parameter("n", "bytes", "", unit="bytes", min_bytes=1, max_bytes=4)
MODE = Parameter("n", "choice", "", choices=("hash", "random"))
SPAN = Parameter("n", "range", "", unit="bytes", minimum=2, maximum=100)
FLAG = Parameter("n", "boolean", "")
NAMED = Parameter("n", "integer", "", minimum=0, maximum=63, names={"EF": 46, "LE": 1})


@pytest.mark.parametrize(
    ("parameter", "value", "parsed"),
    [
        (SMALL, 1, 1), (SMALL, 1000, 1000), (Parameter("n", "integer", ""), INTEGER_MIN, INTEGER_MIN),
        (NAMED, "EF", 46), (NAMED, 46, 46), (NAMED, 0, 0),
        (RATE, 1, 1.0), (RATE, 1.5, 1.5), (FLAG, True, True), (FLAG, False, False),
        (NAME, "é#é"[:2], "é#"), (KEY, "é", b"\xc3\xa9"), (KEY, "hex:00 fF", b"\0\xff"), (KEY, "hex", b"hex"),
        (MODE, "hash", "hash"), (SPAN, "3-7", (3, 7)), (SPAN, 9, (9, 9)), (SPAN, "9", (9, 9)), (SPAN, "9-", (9, 100)),
        (SPAN, "-9", (2, 9)), (SPAN, " 3 - 7 ", (3, 7)), (Parameter("n", "range", ""), "-", None),
        (Parameter("n", "range", ""), "5-", (5, INTEGER_MAX)), (Parameter("n", "range", ""), "-5", (0, 5)),
    ],
)  # fmt: skip
def test_good_values(parameter: Parameter, value: Any, parsed: Any) -> None:
    if parsed is None:
        with pytest.raises(ValueError, match="expected a range"):
            parameter.parse(value)
    else:
        assert parameter.parse(value) == parsed
        assert type(parameter.parse(value)) is type(parsed)


SPAN_EXPECTED = 'expected a range such as "0-100", or one integer, 2..100 (bytes)'


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (SMALL, "x", 'expected integer 1..1000 (ms), got "x"'),
        (SMALL, 0, "expected integer 1..1000 (ms), got 0"),
        (SMALL, True, "expected integer 1..1000 (ms), got true"),
        (SMALL, 1.0, "expected integer 1..1000 (ms), got 1.0"),
        (Parameter("n", "integer", ""), 1 << 63, "expected integer, got 9223372036854775808"),
        (Parameter("n", "integer", "", minimum=0), -1, "expected integer >= 0, got -1"),
        (Parameter("n", "integer", "", maximum=0), 1, "expected integer <= 0, got 1"),
        (NAMED, 64, 'expected integer 0..63 or "EF" "LE", got 64'),
        (NAMED, "ef", 'expected integer 0..63 or "EF" "LE", got "ef", did you mean "EF"?'),
        (NAMED, "46", 'expected integer 0..63 or "EF" "LE", got "46"'),
        (NAMED, True, 'expected integer 0..63 or "EF" "LE", got true'),
        (RATE, 1.6, "expected number 0..1.5, got 1.6"),
        (RATE, float("nan"), "expected number 0..1.5, got NaN"),
        (Parameter("n", "number", ""), float("inf"), "expected number, got Infinity"),
        (RATE, 10**400, "expected number 0..1.5, got 1" + "0" * 59 + "…"),
        (FLAG, 1, "expected true or false, got 1"),
        (NAME, "", 'expected text of 1..4 bytes, got ""'),
        (NAME, "éé#", 'expected text of 1..4 bytes, got "éé#"'),
        (KEY, "hex:0", 'expected text or "hex:00 ff" of 1..4 bytes, got "hex:0"'),
        (KEY, "hex:zz", 'expected text or "hex:00 ff" of 1..4 bytes, got "hex:zz"'),
        (KEY, "hex:", 'expected text or "hex:00 ff" of 1..4 bytes, got "hex:"'),
        (KEY, 5, 'expected text or "hex:00 ff" of 1..4 bytes, got 5'),
        (MODE, "hsah", 'expected one of "hash", "random", got "hsah", did you mean "hash"?'),
        (MODE, 0, 'expected one of "hash", "random", got 0'),
        (SPAN, "7-3", f'{SPAN_EXPECTED}, got "7-3"'),
        (SPAN, "1-3", f'{SPAN_EXPECTED}, got "1-3"'),
        (SPAN, "3-101", f'{SPAN_EXPECTED}, got "3-101"'),
        (SPAN, 101, f"{SPAN_EXPECTED}, got 101"),
        (SPAN, "3 7", f'{SPAN_EXPECTED}, got "3 7"'),
        (SPAN, "", f'{SPAN_EXPECTED}, got ""'),
        (SPAN, [3, 7], f"{SPAN_EXPECTED}, got a list"),
    ],
)  # fmt: skip
def test_wrong_values(parameter: Parameter, value: Any, expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        parameter.parse(value)
    assert str(caught.value) == expected


@given(st.binary(min_size=1, max_size=40), st.sampled_from(["", " ", "  "]))
def test_hex_notation(content: bytes, between: str) -> None:
    parameter = Parameter("n", "bytes", "", max_bytes=40)
    assert parameter.parse("hex:" + between.join(f"{each:02x}" for each in content)) == content


@given(st.text(max_size=40))
def test_text_notation(text: str) -> None:
    parameter = Parameter("n", "bytes", "", max_bytes=200)
    if not text.startswith("hex:"):
        assert parameter.parse(text) == text.encode()


@given(st.integers(0, 120), st.integers(0, 120))
def test_ranges(first: int, last: int) -> None:
    good = 2 <= first <= last <= 100
    try:
        assert SPAN.parse(f"{first}-{last}") == (first, last) and good
    except ValueError:
        assert not good


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_any_value_is_parsed_or_refused_in_one_line(value: Any) -> None:
    for parameter in (SMALL, NAMED, RATE, NAME, KEY, MODE, SPAN, FLAG):
        try:
            parameter.parse(value)
        except ValueError as error:
            assert str(error).startswith("expected ")
