"""`modules new`: a module that works as it is written, to be changed into the one that is wanted."""

import keyword
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from layer45.errors import Layer45Error
from layer45.table import NAME

TEMPLATES = Path(__file__).with_name("skeletons")
LANGUAGES = ("cython", "python")


def write_module(name: str, language: str, directory: Path, kind: str = "datagram") -> list[Path]:
    """Makes directory/name and its files, and returns them. Raises Layer45Error; then nothing was made."""
    _check_name(name)
    if (language, kind) == ("python", "stream"):
        raise Layer45Error("a module of kind stream cannot be written in Python; expected --language cython")
    folder = directory / name
    contents = _contents(name, language, directory) if kind == "datagram" else _stream(name, directory)
    files = {folder / target: text for target, text in contents.items()}
    with _for_others_to_read():
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise Layer45Error(f"{folder}: is there already") from None
        for path, text in files.items():
            path.write_text(text)
    return list(files)


@contextmanager
def _for_others_to_read() -> Iterator[None]:
    """What its group could write would be refused as a module."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise Layer45Error(f"{name}: a module's name is lower-case letters, digits and _, a letter first")


def _contents(name: str, language: str, directory: Path) -> dict[str, str]:
    """Text by file name."""
    values = _values(name, language, directory)
    compiled = language == "cython"
    values["reference_test"] = _fill("reference_test.py", values).rstrip() if compiled else ""
    sources = (
        {"module.pyx": f"{name}.pyx", "module.py": "reference.py"}
        if compiled
        else {"module.py": f"{name}.py"}
    )
    targets = {
        "module.toml": "module.toml",
        **sources,
        "README.md": "README.md",
        "test.py": f"test_{name}.py",
    }
    return _filled(targets, values)


def _stream(name: str, directory: Path) -> dict[str, str]:
    targets = {
        "stream.toml": "module.toml",
        "stream.pyx": f"{name}.pyx",
        "stream.py": "reference.py",
        "stream_README.md": "README.md",
        "stream_test.py": f"test_{name}.py",
    }
    return _filled(targets, _values(name, "cython", directory))


def _filled(targets: dict[str, str], values: dict[str, str]) -> dict[str, str]:
    return {target: _fill(template, values).rstrip() + "\n" for template, target in targets.items()}


def _values(name: str, language: str, directory: Path) -> dict[str, str]:
    compiled = language == "cython"
    return {
        "name": name,
        "language": language,
        "directory": str(directory.absolute()),
        "code": f"{name}.pyx" if compiled else f"{name}.py",
        "code_summary": "the hot code, compiled" if compiled else "the code",
        "reference_row": "| reference.py | the same in plain Python; tests compare the two |\n"
        if compiled
        else "",
        "build_line": f"layer45 modules build {directory.absolute() / name}\n" if compiled else "",
    }


def _fill(template: str, values: dict[str, str]) -> str:
    return Template((TEMPLATES / f"{template}.template").read_text()).substitute(values)
