"""Runs a module's code from bytes that were read, and judged, before: what was verified is what runs.

Compiled code is loaded by its content, once in the life of the process: other bytes are other code beside it,
and what was loaded stays mapped, for flows may still run it.
"""

import errno
import fcntl
import os
import sys
from hashlib import sha256
from importlib import import_module
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

from layer45.errors import Layer45Error
from layer45.faults import is_interrupt, one_line

SITE_PACKAGE = "layer45_site_modules"  # names the code of modules in sys.modules; no such package exists
MFD_NOEXEC_SEAL = 8  # memfd_create(2), since Linux 6.3: the file is no program; it can be mapped all the same
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_compiled: dict[str, ModuleType] = {}  # by digest and name
_sealed: dict[str, Path] = {}  # by digest


def run_python(dotted: str, file: Path, data: bytes) -> ModuleType:
    """Runs source code, anew each time. file: where it stands, for messages.

    Raises Layer45Error, one line.
    """
    name = f"{SITE_PACKAGE}.{dotted}"
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # dataclasses and pickles look themselves up there
    try:
        exec(compile(data, str(file), "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:  # whatever foreign code raises, a user gets one line
        sys.modules.pop(name, None)
        if is_interrupt(error):
            raise
        raise _unloadable(error, file) from error
    return module


def run_compiled(name: str, file: Path, data: bytes) -> ModuleType:
    """Loads an extension module `name`, once for the same bytes. Raises as run_python."""
    digest = sha256(data).hexdigest()
    dotted = f"{SITE_PACKAGE}.sha256_{digest}.{name}"  # its last part names the function PyInit_NAME
    if dotted not in _compiled:
        try:
            _compiled[dotted] = _load(dotted, _sealed_file(digest, data))
        except BaseException as error:
            if is_interrupt(error):
                raise
            raise _unloadable(error, file, str(_sealed.get(digest, file))) from error
    return _compiled[dotted]


def import_shipped(name: str, file: Path) -> ModuleType:
    """A module that came with this program, loaded once as any part of it. Raises as run_python."""
    try:
        return import_module(f"layer45.modules.{name}.{name}")
    except (Exception, SystemExit) as error:
        raise _unloadable(error, file) from error


def _load(dotted: str, sealed: Path) -> ModuleType:
    loader = ExtensionFileLoader(dotted, str(sealed))
    module = module_from_spec(ModuleSpec(dotted, loader, origin=str(sealed)))
    try:
        loader.exec_module(module)
    finally:
        _forget_aliases(module)
    return module


def _forget_aliases(module: ModuleType) -> None:
    """Cython also enters a module by the name it was compiled with, where `import` would find it."""
    for name in [name for name, each in sys.modules.items() if each is module]:
        del sys.modules[name]


def _sealed_file(digest: str, data: bytes) -> Path:
    """A file in memory that nobody can change. Raises OSError.

    It stays open, even if it could not be loaded: the C library knows what it has loaded by the path, so no
    other file may ever have this one's.
    """
    if digest not in _sealed:
        descriptor = _memory_file(f"layer45-{digest[:16]}")
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
        _sealed[digest] = Path(f"/proc/self/fd/{descriptor}")
    return _sealed[digest]


def _memory_file(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)


def _unloadable(error: BaseException, file: Path, shown_as: str = "") -> Layer45Error:
    text = one_line(error)
    if shown_as:
        text = text.replace(shown_as, file.name)
    return Layer45Error(f"{_fault_position(error, file)}: cannot be loaded: {text}")


def _fault_position(error: BaseException, file: Path) -> str:
    """The last line of the file that the error came through."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{file}:{line}" if line else str(file)
