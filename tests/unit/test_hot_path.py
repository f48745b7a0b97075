"""The C that Cython makes of the engine: what is hot meets neither the interpreter nor the allocator."""

import re
from pathlib import Path

import pytest
from Cython.Compiler.Main import CompilationOptions, compile_single, default_options

ROOT = Path(__file__).parents[2]
ENGINE = sorted((ROOT / "fastpath").glob("*.pyx"))
EXCEPTED = {"bridge.pyx"}  # modules in Python run in the interpreter
# At start and end, when a flow opens or closes; and a replay keeps a held packet, as the kernel does live.
MAY_ALLOCATE = re.compile(r"_(?:start|end|open|forget|keep|end_original)$")
INTERPRETER = re.compile(
    r"\b(?:Py_\w*(?:INCREF|DECREF|CLEAR)|__Pyx_\w*(?:INCREF|DECREF|CLEAR|GOTREF|GIVEREF|AddTraceback|Raise\w*"
    r"|WriteUnraisable|ErrFetch\w*|ErrRestore\w*|WithGIL|PyGILState\w*|RefNanny\w*)|PyErr_\w+|PyGILState_\w+"
    r"|PyEval_\w+|PyObject_\w+|Py(?:Long|Float|Bytes|Dict|List|Tuple|Unicode|Mem)_\w+)\b"
)
ALLOCATION = re.compile(r"\b(?:malloc|calloc|realloc|free|strdup)\s*\(")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
FUNCTION = re.compile(r"^static [^;{}()]*?\b(__pyx_f_\w+)\([^;{}]*\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
NOGIL = re.compile(
    r"^cdef (?:inline )?[^=\n]*?\b(\w+)\((?:[^()]|\([^()]*\))*\) noexcept nogil:$", re.MULTILINE
)
TAKES_THE_LOCK = re.compile(r"^    with gil:", re.MULTILINE)


def bodies_of(source: Path, scratch: Path) -> dict[str, str]:
    """Each nogil function's C body, by its name in the source."""
    target = scratch / f"{source.stem}.c"
    options = CompilationOptions(
        default_options, output_file=str(target), language_level=3, include_path=[str(ROOT)],
        compiler_directives={"boundscheck": False, "wraparound": False, "cdivision": True},
    )  # fmt: skip
    name = f"layer45.fastpath.{source.stem}"
    assert compile_single(str(source), options, full_module_name=name).num_errors == 0
    found = dict(FUNCTION.findall(COMMENT.sub("", target.read_text())))
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
