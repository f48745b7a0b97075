"""Line numbers of keys: a writer that knows where it puts them, against the reader; tomllib referees."""

import contextlib
import datetime
import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from layer45.problems import KeyPath
from layer45.toml_lines import key_lines

TRICKY = "ab#=.,[]{}'\"\\ é\n\t"
KEYS = st.text("ab-_#=.[]'\" é", max_size=5)
SCALARS = (
    st.text(TRICKY, max_size=12)
    | st.integers(-(10**12), 10**12)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.datetimes().map(lambda moment: moment.replace(microsecond=0))
    | st.dates()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


class Writer:
    """Writes data as TOML in styles that `draw` chooses, and notes the line of each key."""

    def __init__(self, draw: Any) -> None:
        self.choose = lambda *options: draw(st.sampled_from(options))
        self.text = ""
        self.lines: dict[KeyPath, int] = {}

    def note(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def document(self, data: dict[str, Any]) -> str:
        self.table((), data)
        return self.text

    def table(self, path: KeyPath, table: dict[str, Any]) -> None:
        below = {key: value for key, value in table.items() if is_table(value) and self.choose(True, False)}
        for key, value in table.items():
            if key not in below:
                self.text += self.choose("", " ", "\n", "# a = 1\n", "\t\n")
                self.pair((*path, key), value)
                self.text += self.choose("", " # [x]", '  # "') + "\n"
        for key, value in below.items():
            self.section((*path, key), value)

    def section(self, path: KeyPath, value: Any) -> None:
        if isinstance(value, dict):
            self.header(path, "[", "]")
            self.table(path, value)
            return
        for index, each in enumerate(value):
            self.note(path)
            self.note((*path, index))
            self.header(path, "[[", "]]")
            self.table((*path, index), each)

    def header(self, path: KeyPath, left: str, right: str) -> None:
        self.note(path)
        dotted = self.choose(".", " . ").join(self.key(key) for key in path if isinstance(key, str))
        self.text += f"{left}{self.choose('', ' ')}{dotted}{right}{self.choose('', ' # =')}\n"

    def pair(self, path: KeyPath, value: Any) -> None:
        self.note(path)
        self.text += self.key(str(path[-1])) + self.choose("=", " = ")
        self.value(path, value)

    def key(self, key: str) -> str:
        styles = [json.dumps(key, ensure_ascii=False)]
        if re.fullmatch(r"[A-Za-z0-9_-]+", key):
            styles.append(key)
        if "'" not in key:
            styles.append(f"'{key}'")
        return self.choose(*styles)

    def value(self, path: KeyPath, value: Any) -> None:
        if isinstance(value, dict):
            self.inline(path, value)
        elif isinstance(value, list):
            self.list(path, value)
        else:
            self.text += self.scalar(value)

    def inline(self, path: KeyPath, table: dict[str, Any]) -> None:
        self.text += "{"
        for index, (key, value) in enumerate(table.items()):
            self.text += ", " if index else self.choose("", " ")
            self.pair((*path, key), value)
        self.text += self.choose("", " ") + "}"

    def list(self, path: KeyPath, items: list[Any]) -> None:
        self.text += "["
        for index, item in enumerate(items):
            self.text += self.choose("", " ", "\n", " # ],\n\n")
            self.note((*path, index))
            self.value((*path, index), item)
            self.text += self.choose("", " ", "\n") + (
                "," if index + 1 < len(items) else self.choose("", ",")
            )
        self.text += self.choose("", "\n", "# [\n") + "]"

    def scalar(self, value: Any) -> str:
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, datetime.date):
            return value.isoformat().replace("T", self.choose("T", " "))
        return json.dumps(value)

    def string(self, value: str) -> str:
        styles = [json.dumps(value, ensure_ascii=False)]
        if "'" not in value and "\n" not in value:
            styles.append(f"'{value}'")
        if "'" not in value:
            styles.append(f"'''\n{value}'''")
            styles.append(f"'''\n{value}''''")  # one quote more: it belongs to the text
        escaped = value.replace("\\", "\\\\").replace('"""', '""\\"')
        styles.append(f'"""\n{escaped}\\n"""')
        return self.choose(*styles)


def is_table(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)
    )


def paths(data: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from paths(value, (*path, key))


@given(st.data(), DOCUMENTS)
def test_every_key_is_where_it_was_written(data: st.DataObject, document: dict[str, Any]) -> None:
    writer = Writer(data.draw)
    text = writer.document(document)
    assert set(paths(tomllib.loads(text))) == set(key_lines(text))
    assert key_lines(text) == writer.lines


def test_dotted_keys_and_late_headers() -> None:
    text = """\
a.b.c = 1
a.b.d = 2

[x.y]
[x]      # begins here, although x.y came first
"z.z" . w = '''
[no]
k = 1
''' # not a key: q = 1
[[l]]
k.m = 1
[l.n]
[[l]]
[[l.o]]
"""
    assert key_lines(text) == {
        ("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1, ("a", "b", "d"): 2,
        ("x",): 5, ("x", "y"): 4, ("x", "z.z"): 6, ("x", "z.z", "w"): 6,
        ("l",): 10, ("l", 0): 10, ("l", 0, "k"): 11, ("l", 0, "k", "m"): 11, ("l", 0, "n"): 12,
        ("l", 1): 13, ("l", 1, "o"): 14, ("l", 1, "o", 0): 14,
    }  # fmt: skip


def test_quotes_at_the_end_of_long_strings() -> None:
    text = 'a = """x"""""\nb = \'\'\'y\'\'\'\'\'\nc = """\\""""\nd = 1\n'
    tomllib.loads(text)
    assert key_lines(text) == {("a",): 1, ("b",): 2, ("c",): 3, ("d",): 4}


def test_a_large_file_takes_no_time() -> None:
    text = "".join(f'[t{n}]\nk = ["{n}", # c\n{{ x = {n} }}]\n' for n in range(5000))
    assert key_lines(text)[("t4999", "k", 1, "x")] == 15000


@given(st.text("ab=[]{}.,#\n\"' ", max_size=40))
@settings(max_examples=500)
def test_it_ends_whatever_the_text(text: str) -> None:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with contextlib.suppress(ValueError):
            key_lines(text)
    else:
        assert set(key_lines(text)) == set(paths(data))
