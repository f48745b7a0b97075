"""The C that Cython makes of hot functions: no interpreter, no references, no exceptions, no allocation."""

import re
from pathlib import Path

import pytest

from tests.unit.generated_c import ALLOCATION, INTERPRETER, ROOT, functions_of

COMPILED = sorted(file for file in ROOT.glob("modules/*/*.pyx"))
OPS = re.compile(r"^OPS\.(?:egress|ingress|tick|flow_open|flow_close) = (\w+)$", re.MULTILINE)
CDEF = re.compile(r"^cdef (?:inline )?[^=\n]*?\b(\w+)\((?:[^()]|\([^()]*\))*\)(.*):$", re.MULTILINE)


@pytest.mark.parametrize("source", COMPILED, ids=lambda source: source.stem)
def test_hot_functions_stay_out_of_the_interpreter(source: Path, tmp_path: Path) -> None:
    bodies = functions_of(source, f"layer45.modules.{source.stem}.{source.stem}", tmp_path)
    text = source.read_text()
    own = [name for name in bodies if f"_{len(source.stem)}{source.stem}_" in name]
    for name in {*OPS.findall(text), *(each[0] for each in CDEF.findall(text))}:
        assert any(each.endswith(f"_{name}") for each in own), f"{name} was not found in the C code"
    found = {
        name: sorted({*INTERPRETER.findall(body), *ALLOCATION.findall(body)}) for name, body in bodies.items()
    }
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("source", COMPILED, ids=lambda source: source.stem)
def test_every_function_is_noexcept_nogil(source: Path) -> None:
    declared = CDEF.findall(source.read_text())
    assert declared
    assert [name for name, rest in declared if rest.strip() != "noexcept nogil"] == []


def test_the_scan_finds_what_it_forbids(tmp_path: Path) -> None:
    source = tmp_path / "guilty.pyx"
    source.write_text("cdef int guilty(object a) except -1:\n    return len(a)\n")
    (body,) = [text for name, text in functions_of(source, "guilty", tmp_path).items() if "guilty" in name]
    assert INTERPRETER.search(body)
