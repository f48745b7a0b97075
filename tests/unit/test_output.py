"""What a pipe gets: no colour, no frame, nothing cut; and what a terminal gets."""

import json
import os
import pty
import subprocess
import sys

import pytest

from layer45.output import Figure, print_error, print_json, print_table

LONG = "x" * 300


def test_a_pipe_gets_aligned_columns_and_whole_cells(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "COUNT", "TEXT"), [("a", 5, "[bold]not markup[/bold]"), ("long name", 12345, LONG)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "NAME       COUNT  TEXT"
    assert lines[1] == "a              5  [bold]not markup[/bold]"
    assert lines[2] == f"long name  12345  {LONG}"


def test_figures_stand_right_as_numbers_do(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "COUNT"), [("a", 12345), ("b", Figure("0.5")), ("c", Figure("-"))])
    assert [line[-5:] for line in capsys.readouterr().out.splitlines()] == [
        "COUNT",
        "12345",
        "  0.5",
        "    -",
    ]


def test_no_rows_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME",), [])
    assert capsys.readouterr().out == ""


def test_values_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B", "C"), [(True, None, False)])
    assert capsys.readouterr().out.splitlines()[1].split() == ["yes", "no"]


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"b": [1, 2], "a": frozenset([3]), "text": "ü"})
    assert json.loads(capsys.readouterr().out) == {"b": [1, 2], "a": [3], "text": "ü"}


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error("two\nlines")
    assert capsys.readouterr().err == "layer45: two lines\n"


def test_a_terminal_gets_colours_and_no_markup_from_cells() -> None:
    code = "from layer45.output import print_table; print_table(('A', 'B'), [('[red]x', 'missing')])"
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    subprocess.run([sys.executable, "-c", code], stdout=theirs, env=environment, check=True)
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert "[red]x" in said
    assert "\x1b[1;31mmissing" in said
