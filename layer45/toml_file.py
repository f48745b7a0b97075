"""One TOML file -> its data; what is wrong with it becomes a problem with a line number."""

import re
import tomllib
from pathlib import Path
from typing import Any

from layer45.problems import Place, Problems
from layer45.toml_lines import KeyLines
from layer45.trusted_files import Directory, Distrusted

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


Read = tuple[dict[str, Any], Place]


def read_toml(directory: Directory, file: Path, problems: Problems) -> Read | None:
    """A file's data and the place of its top. None, and a problem, if it cannot be read, or is not trusted.

    file: in the directory, which may have another name than the user gave it.
    """
    try:
        return parse_toml(file, directory.read_followed(file.name), problems)
    except Distrusted as error:
        problems.add_file(error.path, error.reason)
    except OSError as error:
        problems.add_file(file, f"cannot be read: {error.strerror}")
    return None


def parse_toml(file: Path, data: bytes, problems: Problems) -> Read | None:
    """As read_toml, for what was read before."""
    try:
        text = data.decode().replace("\r\n", "\n")
        return tomllib.loads(text), Place(file, KeyLines(text))
    except UnicodeDecodeError as error:
        problems.add_file(file, "not UTF-8 text", error.object.count(b"\n", 0, error.start) + 1)
    except RecursionError:
        problems.add_file(file, "not valid TOML: nested too deeply")
    except ValueError as error:  # also tomllib.TOMLDecodeError
        problems.add_file(file, *_syntax_error(str(error), text))
    return None


def _syntax_error(message: str, text: str) -> tuple[str, int]:
    plain = _POSITION.sub("", message)
    plain = f"not valid TOML: {plain[:1].lower()}{plain[1:]}"
    found = _POSITION.search(message)
    if not found:
        return plain, 0
    if not found[1]:
        return plain, text.rstrip("\n").count("\n") + 1
    return plain + _broken_line(plain, text, int(found[1]), int(found[2])), int(found[1])


def _broken_line(plain: str, text: str, line: int, column: int) -> str:
    """A hint for the mistake that is made most: the parser wants a key where an inline table's line ends."""
    ends_there = len(text.split("\n")[line - 1]) < column
    return "; a table in { } must stand on one line" if ends_there and "for a key part" in plain else ""
