"""On which line a key of a TOML file stands; the standard parser does not tell.

Reads text that tomllib has accepted, so it need not judge it: it steps over values and notes where keys,
tables and list elements begin.
"""

import functools
import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Mapping

from layer45.problems import KeyPath

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_TEXT = re.compile(
    r'"""(?:[^"\\]|\\(?s:.)|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
)
_PLAIN = re.compile(r"[^,\]}#\n]*")


class KeyLines(Mapping[KeyPath, int]):
    """The same as key_lines, found when it is first asked for: in most files nothing is wrong."""

    def __init__(self, text: str) -> None:
        self._text = text

    @functools.cached_property
    def _lines(self) -> dict[KeyPath, int]:
        try:
            return key_lines(self._text)
        except RecursionError:  # nested so deeply that nobody looks for a line
            return {}

    def __getitem__(self, path: KeyPath) -> int:
        return self._lines[path]

    def __iter__(self) -> Iterator[KeyPath]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


def key_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, of every key, table and list element. text must be valid TOML."""
    return _Reader(text).document()


def _unquoted(key: str) -> str:
    return tomllib.loads(f"key = {key}")["key"] if key.startswith(('"', "'")) else key


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.asked = -1  # where _more was last asked
        self.newlines = [match.start() for match in re.finditer("\n", text)]
        self.lines: dict[KeyPath, int] = {}
        self.last_element: dict[KeyPath, int] = {}  # of [[lists of tables]]

    def document(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._more():
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self.lines

    def _more(self, end: str = "\0") -> bool:
        """Whether there is something before the end. Also False if nothing was read since last time."""
        self._skip(_BLANK)
        stuck = self.at == self.asked
        self.asked = self.at
        return not stuck and self.at < len(self.text) and not self._take(end)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return self.at

    def _take(self, literal: str) -> bool:
        taken = self.text.startswith(literal, self.at)
        self.at += len(literal) * taken
        return taken

    def _line(self) -> int:
        return bisect_right(self.newlines, self.at) + 1

    def _header(self) -> KeyPath:
        line = self._line()
        many = self._take("[[")
        if not many:
            self._take("[")
        path: KeyPath = ()
        keys = self._dotted()
        for key in keys[:-1]:
            path = self._entered((*path, key), line)
        path = (*path, keys[-1])
        self._take("]]" if many else "]")
        return self._next_element(path, line) if many else self._named(path, line)

    def _entered(self, path: KeyPath, line: int) -> KeyPath:
        """A table on the way to a header's own: of a list of tables the last one."""
        self.lines.setdefault(path, line)
        return (*path, self.last_element[path]) if path in self.last_element else path

    def _named(self, path: KeyPath, line: int) -> KeyPath:
        self.lines[path] = line  # its own header beats an earlier one of a table inside it
        return path

    def _next_element(self, path: KeyPath, line: int) -> KeyPath:
        index = self.last_element.get(path, -1) + 1
        self.last_element[path] = index
        self.lines.setdefault(path, line)
        return self._named((*path, index), line)

    def _dotted(self) -> list[str]:
        keys = []
        while True:
            self._skip(_SPACE)
            start = self.at
            keys.append(_unquoted(self.text[start : self._skip(_KEY)]))
            self._skip(_SPACE)
            if not self._take("."):
                return keys

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for key in self._dotted():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._take("=")
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        if self._take("["):
            self._list(path)
        elif self._take("{"):
            self._inline_table(path)
        elif self.text.startswith(('"', "'"), self.at):
            self._skip(_TEXT)
        else:
            self._skip(_PLAIN)

    def _list(self, path: KeyPath) -> None:
        index = 0
        while self._more("]"):
            self.lines[(*path, index)] = self._line()
            self._value((*path, index))
            self._skip(_BLANK)
            self._take(",")
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while self._more("}"):
            self._pair(path)
            self._skip(_BLANK)
            self._take(",")
