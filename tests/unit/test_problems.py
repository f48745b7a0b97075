"""Places, and one line for whatever stands in a file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layer45.errors import ConfigError
from layer45.problems import Place, Problems, shown
from layer45.suggest import did_you_mean

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()) | st.dates()
)


@given(st.lists(st.text(max_size=8) | st.integers(0, 9), min_size=1), VALUES)
def test_a_problem_is_one_line(path: list[str | int], value: object) -> None:
    problems = Problems()
    problems.add(Place(Path("f"), {}, tuple(path)), f"got {shown(value)}")
    (line,) = problems.sorted_lines()
    assert len(line.splitlines()) == 1


def test_keys_as_a_user_writes_them() -> None:
    place = Place(Path("f"), {("policy",): 1, ("policy", "a"): 2}, ("policy",))
    assert place.child("a", "chain", 1, "x").key == "policy.a.chain[1].x"
    assert place.child("a b", "").key == 'policy."a b".""'
    assert place.child("a", "chain", 1, "x").line == 2
    assert (str(place.child("b")), str(Place(Path("f")))) == ("f:1", "f")


def test_sorted_by_file_line_and_key_without_doubles() -> None:
    problems = Problems()
    lines = {("b",): 2, ("a",): 10, ("c",): 2}
    for key in "abcb":
        problems.add(Place(Path("g"), lines, (key,)), "x")
    problems.add_file(Path("f"), "y")
    with pytest.raises(ConfigError) as caught:
        problems.raise_any()
    assert caught.value.problems == ["f: y", "g:2: b: x", "g:2: c: x", "g:10: a: x"]
    assert str(caught.value) == "\n".join(caught.value.problems)


def test_what_concerns_a_place() -> None:
    problems = Problems()
    problems.add(Place(Path("f"), path=("policy", "a", "match", "remote", 0)), "x")
    top = Place(Path("f"), path=("policy",))
    assert problems.concern(top.child("a", "match"))
    assert problems.concern(top.child("a", "match", "remote"))
    assert not problems.concern(top.child("a", "mat"))
    assert not problems.concern(Place(Path("g"), path=("policy",)))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("protocl", ', did you mean "protocol"?'),
        ("PROTOCOL", ', did you mean "protocol"?'),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_did_you_mean(name: str, hint: str) -> None:
    assert did_you_mean(name, ["protocol", "remote"]) == hint
