"""The C that Cython makes of the engine: what is hot meets neither the interpreter nor the allocator."""

import re
from pathlib import Path

import pytest

from .generated_c import ALLOCATION, INTERPRETER, ROOT, functions_of

ENGINE = sorted((ROOT / "fastpath").glob("*.pyx"))
EXCEPTED = {"bridge.pyx"}  # modules in Python run in the interpreter
# At start and end, when a flow opens or closes; and a replay keeps a held packet, as the kernel does live.
MAY_ALLOCATE = re.compile(r"_(?:start|end|open|forget|keep|end_original)$")
NOGIL = re.compile(
    r"^cdef (?:inline )?[^=\n]*?\b(\w+)\((?:[^()]|\([^()]*\))*\) noexcept nogil:$", re.MULTILINE
)
TAKES_THE_LOCK = re.compile(r"^    with gil:", re.MULTILINE)


def bodies_of(source: Path, scratch: Path) -> dict[str, str]:
    """Each nogil function's C body, by its name in the source."""
    found = functions_of(source, f"layer45.fastpath.{source.stem}", scratch)
    names = NOGIL.findall(source.read_text())
    return {name: body for name in names for c_name, body in found.items() if c_name.endswith(f"_{name}")}


def hot(source: Path, bodies: dict[str, str]) -> dict[str, str]:
    """Without functions that a test hands in to collect what the hot path gives."""
    text = source.read_text()
    collectors = {match[1] for match in NOGIL.finditer(text) if TAKES_THE_LOCK.match(text, match.end() + 1)}
    return {name: body for name, body in bodies.items() if name not in collectors}


@pytest.mark.parametrize(
    "source", [file for file in ENGINE if file.name not in EXCEPTED], ids=lambda source: source.stem
)
def test_nothing_hot_meets_the_interpreter_or_allocates(source: Path, tmp_path: Path) -> None:
    names = NOGIL.findall(source.read_text())
    bodies = bodies_of(source, tmp_path)
    assert set(bodies) == set(names), "a function was not found in the C code"
    for name, body in hot(source, bodies).items():
        assert not INTERPRETER.findall(body), name
        assert MAY_ALLOCATE.search(name) or not ALLOCATION.findall(body), name


def test_only_the_bridge_and_collectors_take_the_lock() -> None:
    taking = {file.name for file in ENGINE if "with gil" in file.read_text()}
    assert taking == {"bridge.pyx", "fragment.pyx"}


def test_the_scan_finds_what_it_forbids(tmp_path: Path) -> None:
    source = tmp_path / "guilty.pyx"
    source.write_text(
        "from libc.stdlib cimport malloc\n"
        "cdef void *guilty(size_t count) noexcept nogil:\n"
        "    with gil:\n"
        "        print(count)\n"
        "    return malloc(count)\n"
    )
    (body,) = bodies_of(source, tmp_path).values()
    assert INTERPRETER.search(body)
    assert ALLOCATION.search(body)
