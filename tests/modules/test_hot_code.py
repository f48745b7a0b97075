"""The C that Cython makes of hot functions: no interpreter, no references, no exceptions, no allocation."""

import re
from pathlib import Path

import pytest
from Cython.Compiler.Main import CompilationOptions, compile_single, default_options

ROOT = Path(__file__).parents[2]
COMPILED = sorted(file for file in ROOT.glob("modules/*/*.pyx"))
FORBIDDEN = re.compile(
    r"\b(?:Py_\w*(?:INCREF|DECREF|CLEAR)|__Pyx_\w*(?:INCREF|DECREF|CLEAR|GOTREF|GIVEREF|AddTraceback|Raise\w*"
    r"|WriteUnraisable|ErrFetch\w*|ErrRestore\w*|WithGIL|PyGILState\w*|RefNanny\w*)|PyErr_\w+|PyGILState_\w+"
    r"|PyEval_\w+|PyObject\w*|Py(?:Long|Float|Bytes|Dict|List|Tuple|Unicode|Mem)_\w+|malloc|calloc|realloc|free)\b"
)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
FUNCTION = re.compile(r"^static [^;{}()]*?\b(__pyx_f_\w+)\([^;{}]*\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
OPS = re.compile(r"^OPS\.(?:egress|ingress|tick|flow_open|flow_close) = (\w+)$", re.MULTILINE)
CDEF = re.compile(r"^cdef (?:inline )?[^=\n]*?\b(\w+)\((?:[^()]|\([^()]*\))*\)(.*):$", re.MULTILINE)


def functions_of(source: Path, dotted: str, scratch: Path) -> dict[str, str]:
    """C body by mangled name; those of inlined .pxd functions too."""
    target = scratch / f"{source.stem}.c"
    options = CompilationOptions(
        default_options, output_file=str(target), language_level=3, include_path=[str(ROOT)],
        compiler_directives={"boundscheck": False, "wraparound": False, "cdivision": True},
    )  # fmt: skip
    assert compile_single(str(source), options, full_module_name=dotted).num_errors == 0
    return dict(FUNCTION.findall(COMMENT.sub("", target.read_text())))


@pytest.mark.parametrize("source", COMPILED, ids=lambda source: source.stem)
def test_hot_functions_stay_out_of_the_interpreter(source: Path, tmp_path: Path) -> None:
    bodies = functions_of(source, f"layer45.modules.{source.stem}.{source.stem}", tmp_path)
    text = source.read_text()
    own = [name for name in bodies if f"_{len(source.stem)}{source.stem}_" in name]
    for name in {*OPS.findall(text), *(each[0] for each in CDEF.findall(text))}:
        assert any(each.endswith(f"_{name}") for each in own), f"{name} was not found in the C code"
    found = {name: sorted(set(FORBIDDEN.findall(body))) for name, body in bodies.items()}
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
    assert FORBIDDEN.search(body)
