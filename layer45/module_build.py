"""`modules build`: compiles a site module in its folder, against the installed fast path's headers."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from layer45.errors import Layer45Error

FAST_PATH = Path(__file__).with_name("fastpath")
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "binding": True,
}
SHOWN_LINES = 12


def build_module(folder: Path) -> Path:
    """Compiles folder/NAME.pyx and returns the shared object. Raises Layer45Error: what the compiler said."""
    source = folder / f"{folder.name}.pyx"
    if not source.is_file():
        raise Layer45Error(f"{source}: no such file; a compiled module's code is NAME.pyx in a folder NAME")
    output = io.StringIO()
    try:
        with _quiet(output), tempfile.TemporaryDirectory(prefix="layer45-build-") as scratch:
            built = _compile(source, Path(scratch))
            target = folder / built.name
            _replace(built, target)
            return target
    except ImportError as error:
        raise Layer45Error(f"cannot compile: {error}; pip install Cython setuptools") from None
    except Exception as error:
        raise Layer45Error(f"{source}: does not compile: {_reason(output.getvalue(), error)}") from None


def _compile(source: Path, scratch: Path) -> Path:
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extension = Extension(
        source.stem, [str(source)], include_dirs=[str(FAST_PATH)], extra_compile_args=["-O3", "-Wall"]
    )
    extensions = cythonize(
        [extension], build_dir=str(scratch), compiler_directives=DIRECTIVES, force=True, quiet=True,
        include_path=[str(FAST_PATH.parent.parent)],
    )  # fmt: skip
    command = build_ext(Distribution({"name": source.stem, "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(scratch / "lib"), str(scratch / "objects")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(source.stem))


def _replace(built: Path, target: Path) -> None:
    """A daemon may have the old one mapped: the new one takes its name, not its bytes."""
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(built.read_bytes())
    part.chmod(0o755)
    part.replace(target)


@contextlib.contextmanager
def _quiet(output: io.StringIO) -> Iterator[None]:
    """Collects what Cython prints, and what the C compiler writes to descriptors 1 and 2."""
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile("w+") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                yield
        finally:
            for target, descriptor in zip((1, 2), saved, strict=True):
                os.dup2(descriptor, target)
                os.close(descriptor)
            file.seek(0)
            output.write(file.read())


def _reason(output: str, error: Exception) -> str:
    """The lines that say error, or else what was raised; on one line."""
    told = [line.strip() for line in output.splitlines() if "error" in line.lower() or ".pyx:" in line]
    return " | ".join(told[:SHOWN_LINES]) or " ".join(f"{type(error).__name__}: {error}".split())
