"""The C that Cython makes of hot functions: no interpreter, no references, no exceptions, no allocation.

All compiled code of a module is hot, but for shells, NAME_shell.pyx: classes and functions of Python around
it, for tests and tools. No other file of a module may know one.
"""

import re
from pathlib import Path

import pytest

from tests.unit.generated_c import ALLOCATION, INTERPRETER, ROOT, functions_of

SHELL = re.compile(r"\w+_shell\b")
WRITTEN = sorted(file for file in ROOT.glob("modules/*/*.p[yx][xd]") if not SHELL.fullmatch(file.stem))
COMPILED = [file for file in WRITTEN if file.suffix == ".pyx"]
OPS = re.compile(r"^OPS\.(?:egress|ingress|tick|flow_open|flow_close) = (\w+)$", re.MULTILINE)
OF_PYTHON = re.compile(r"^\s*(?:def|cpdef|class|cdef class)\b.*", re.MULTILINE)
CDEF = re.compile(r"^cdef (?:inline )?[^=\n]*?\b(\w+)\((?:[^()]|\([^()]*\))*\)(.*):$", re.MULTILINE)


def named(source: Path) -> str:
    return f"{source.parent.name}/{source.name}"


@pytest.mark.parametrize("source", COMPILED, ids=named)
def test_hot_functions_stay_out_of_the_interpreter(source: Path, tmp_path: Path) -> None:
    folder, stem = source.parent.name, source.stem
    bodies = functions_of(source, f"layer45.modules.{folder}.{stem}", tmp_path)
    text = source.read_text()
    own = [name for name in bodies if f"_{len(folder)}{folder}_{len(stem)}{stem}_" in name]
    for name in {*OPS.findall(text), *(each[0] for each in CDEF.findall(text))}:
        assert any(each.endswith(f"_{name}") for each in own), f"{name} was not found in the C code"
    found = {
        name: sorted({*INTERPRETER.findall(body), *ALLOCATION.findall(body)}) for name, body in bodies.items()
    }
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("source", WRITTEN, ids=named)
def test_every_function_is_noexcept_nogil(source: Path) -> None:
    declared = CDEF.findall(source.read_text())
    assert declared or source.suffix == ".pxd"
    assert [name for name, rest in declared if rest.strip() != "noexcept nogil"] == []


@pytest.mark.parametrize("source", WRITTEN, ids=named)
def test_hot_code_has_nothing_of_python_and_knows_no_shell(source: Path) -> None:
    text = source.read_text()
    assert OF_PYTHON.findall(text) == []
    assert SHELL.findall(text) == []


def test_the_scan_finds_what_it_forbids(tmp_path: Path) -> None:
    source = tmp_path / "guilty.pyx"
    source.write_text("cdef int guilty(object a) except -1:\n    return len(a)\n")
    (body,) = [text for name, text in functions_of(source, "guilty", tmp_path).items() if "guilty" in name]
    assert INTERPRETER.search(body)
