"""Places in TOML files, and the list of all that is wrong there."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from layer45.errors import ConfigError

KeyPath = tuple[str | int, ...]
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Place:
    """A key in a file, for example policy.voice.chain[1].deadline_ms. lines: as toml_lines has them."""

    file: Path
    lines: Mapping[KeyPath, int] = field(default_factory=dict, repr=False, compare=False)
    path: KeyPath = ()

    def child(self, *keys: str | int) -> "Place":
        """The place of a key, or of a list's element, below this one."""
        return Place(self.file, self.lines, self.path + keys)

    @property
    def line(self) -> int:
        """The line of the key, or of the nearest one above it that the file has; 0 when it has none."""
        for length in range(len(self.path), 0, -1):
            if self.path[:length] in self.lines:
                return self.lines[self.path[:length]]
        return 0

    @property
    def key(self) -> str:
        """As a user writes it."""
        return "".join(_step(step) for step in self.path).removeprefix(".")

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return "." + (step if BARE_KEY.fullmatch(step) else json.dumps(step))


def shown(value: object) -> str:
    """A value from a file, short and on one line."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _is_below(key: str, above: str) -> bool:
    return key.startswith(above) and key[len(above) :][:1] in ("", ".", "[")


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong. line 0 and an empty key are left out."""

    file: str
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        parts = [where, self.key, self.text] if self.key else [where, self.text]
        return " ".join(": ".join(parts).splitlines())


class Problems:
    """Collects problems, so that a user sees all of them at once."""

    def __init__(self) -> None:
        self._found: set[Problem] = set()

    def add(self, place: Place, text: str) -> None:
        """Something is wrong at a key."""
        self._found.add(Problem(str(place.file), place.line, place.key, text))

    def add_file(self, file: Path, text: str, line: int = 0) -> None:
        """Something is wrong with a file as a whole, or at a line that has no key."""
        self._found.add(Problem(str(file), line, "", text))

    def extend(self, other: "Problems") -> None:
        """Takes over what another list found."""
        self._found |= other._found

    def concern(self, place: Place) -> bool:
        """Whether there is a problem at the place or below it."""
        key, file = place.key, str(place.file)
        return any(each.file == file and _is_below(each.key, key) for each in self._found)

    def __len__(self) -> int:
        return len(self._found)

    def sorted_lines(self) -> list[str]:
        """One line each, by file, line and key."""
        return [str(problem) for problem in sorted(self._found)]

    def raise_any(self) -> None:
        """Raises ConfigError if there is a problem."""
        if self._found:
            raise ConfigError(self.sorted_lines())
