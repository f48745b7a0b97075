"""Reads one TOML file; what is wrong with it becomes a problem with a line number."""

import re
import tomllib
from pathlib import Path
from typing import Any

from layer45.problems import Place, Problems
from layer45.toml_lines import key_lines

_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def read_toml(file: Path, problems: Problems) -> tuple[dict[str, Any], Place] | None:
    """The file's data and the place of its top. None, and a problem, if it cannot be read."""
    try:
        text = file.read_bytes().decode().replace("\r\n", "\n")
        return tomllib.loads(text), Place(file, key_lines(text))
    except OSError as error:
        problems.add_file(file, f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.add_file(file, "not UTF-8 text", error.object.count(b"\n", 0, error.start) + 1)
    except RecursionError:
        problems.add_file(file, "not valid TOML: nested too deeply")
    except ValueError as error:  # also tomllib.TOMLDecodeError
        problems.add_file(file, *_syntax_error(str(error), text))
    return None


def _syntax_error(message: str, text: str) -> tuple[str, int]:
    found = _POSITION.search(message)
    line = int(found[1]) if found and found[1] else text.rstrip("\n").count("\n") + 1
    plain = _POSITION.sub("", message)
    return f"not valid TOML: {plain[:1].lower()}{plain[1:]}", line if found else 0
