"""The C that Cython makes of a source, cut into functions, and what hot ones must not have in them."""

import re
from pathlib import Path

from Cython.Compiler.Main import CompilationOptions, compile_single, default_options

ROOT = Path(__file__).parents[2]
INTERPRETER = re.compile(
    r"\b(?:Py_\w*(?:INCREF|DECREF|CLEAR)|__Pyx_\w*(?:INCREF|DECREF|CLEAR|GOTREF|GIVEREF|AddTraceback|Raise\w*"
    r"|WriteUnraisable|ErrFetch\w*|ErrRestore\w*|WithGIL|PyGILState\w*|RefNanny\w*)|PyErr_\w+|PyGILState_\w+"
    r"|PyEval_\w+|PyObject\w*|Py(?:Long|Float|Bytes|Dict|List|Tuple|Unicode|Mem)_\w+)\b"
)
ALLOCATION = re.compile(r"\b(?:malloc|calloc|realloc|free|strdup)\b")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
FUNCTION = re.compile(r"^static [^;{}()]*?\b(__pyx_f_\w+)\([^;{}]*\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)


def functions_of(source: Path, dotted: str, scratch: Path) -> dict[str, str]:
    """C body by mangled name; those of inlined .pxd functions too. dotted: the module's name."""
    target = scratch / f"{source.stem}.c"
    options = CompilationOptions(
        default_options, output_file=str(target), language_level=3, include_path=[str(ROOT)],
        compiler_directives={"boundscheck": False, "wraparound": False, "cdivision": True},
    )  # fmt: skip
    assert compile_single(str(source), options, full_module_name=dotted).num_errors == 0
    return dict(FUNCTION.findall(COMMENT.sub("", target.read_text())))
