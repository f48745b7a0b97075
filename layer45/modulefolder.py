"""Modules on disk: finds their folders, reads their manifests, loads their code when it is wanted."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2s
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

from layer45 import manifest as manifests
from layer45.config import DEFAULT_MODULE_DIR, Settings
from layer45.errors import Layer45Error
from layer45.faults import is_interrupt
from layer45.manifest import Manifest, read_manifest
from layer45.problems import Place, Problems

SHIPPED = Path(__file__).with_name("modules")
SITE_PACKAGE = "layer45_site_modules"  # names the code of site modules in sys.modules; no such package exists


@dataclass
class Module:
    """A module found on disk. Compiled code, once loaded, stays as it is while the process lives.

    ops: the PyCapsule of a compiled module. python_class: the class `Module` of one written in Python.
    Both are None before load_code.
    """

    manifest: Manifest = field(repr=False)
    folder: Path
    shipped: bool
    ops: Any = field(default=None, repr=False)
    python_class: type | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The module's and its folder's name."""
        return self.manifest.name

    @property
    def code(self) -> Path | None:
        """The file with the code; None if it is not there (a compiled module that was not built)."""
        suffixes = [".py"] if self.manifest.language == "python" else EXTENSION_SUFFIXES
        files = (self.folder / f"{self.name}{suffix}" for suffix in suffixes)
        return next((file for file in files if os.path.isfile(file)), None)  # noqa: PTH113 (never raises)

    def code_digest(self) -> str:
        """Changes with the code of a module in Python, which a reload takes up; empty for a compiled one."""
        if self.manifest.language != "python" or self.code is None:
            return ""
        try:
            return blake2s(self.code.read_bytes(), digest_size=8).hexdigest()
        except OSError:
            return "unreadable"  # load_code says why

    def load_code(self) -> None:
        """Sets ops or python_class. Raises Layer45Error, one line: there is no such code, or it is wrong."""
        if self.ops or self.python_class:
            return
        if self.manifest.language == "python":
            self.python_class = self._class_in(self._existing(f"{self.name}.py"), self.name)
        else:
            self.ops = self._checked_ops()

    def load_reference(self) -> type:
        """The class `Module` of reference.py, which can stand in for compiled code. Raises Layer45Error."""
        return self._class_in(self._existing("reference.py"), f"{self.name}.reference")

    def _existing(self, name: str) -> Path:
        file = self.folder / name
        if not file.is_file():
            raise Layer45Error(f"{file}: no such file; module {self.name} needs it")
        return file

    def _class_in(self, file: Path, dotted: str) -> type:
        found = getattr(_run(f"{SITE_PACKAGE}.{dotted}", file), "Module", None)
        if not isinstance(found, type):
            raise Layer45Error(f"{file}: expected a class Module")
        if not any(hasattr(found, name) for name in self._methods):
            *most, last = self._methods
            raise Layer45Error(f"{file}: class Module has neither {', '.join(most)} nor {last}")
        return found

    @property
    def _methods(self) -> tuple[str, ...]:
        """One of which a class `Module` must have."""
        stream = ("inserted", "change") if self.manifest.kind == "stream" else ()
        return ("egress", "ingress", *stream)

    def _checked_ops(self) -> Any:
        if self.code is None:
            raise Layer45Error(
                f"{self.folder}: module {self.name} is not built; expected {self.name}.*.so in it"
            )
        ops = getattr(self._compiled(self.code), "ops", None)
        _check_ops(self.manifest, ops, self.code)
        return ops

    def _compiled(self, file: Path) -> ModuleType:
        if not self.shipped:
            return _run(f"{SITE_PACKAGE}.{self.name}.{self.name}", file)
        try:
            return importlib.import_module(f"layer45.modules.{self.name}.{self.name}")
        except (Exception, SystemExit) as error:  # whatever foreign code raises, a user gets one line
            raise Layer45Error(f"{file}: cannot be loaded: {_one_line(error)}") from error


def _check_ops(manifest: Manifest, ops: object, file: Path) -> None:
    try:  # the engine is built code, too: it is wanted only now that a module is to run
        chain = importlib.import_module("layer45.fastpath.chain")
        state_bytes = chain.flow_state_bytes(manifest.name, ops)
        flow_counters = chain.flow_counters(manifest.name, ops)
    except (ImportError, ValueError) as error:
        raise Layer45Error(f"{file}: {error}") from error
    if state_bytes != manifest.flow_state_bytes:
        declared = f"module.toml says flow_state_bytes = {manifest.flow_state_bytes}"
        raise Layer45Error(f"{file}: {declared}, the code has {state_bytes}")
    if flow_counters > len(manifest.counters):
        declared = f"module.toml has {len(manifest.counters)} counters"
        raise Layer45Error(f"{file}: {declared}, the code keeps the first {flow_counters} for each flow")


def _run(name: str, file: Path) -> ModuleType:
    """Runs a file as the Python module `name`. A compiled one is loaded once; Python code anew each time."""
    present = sys.modules.get(name)
    if present and file.suffix != ".py":
        if present.__file__ != str(file):
            raise Layer45Error(f"{file}: {present.__file__} of the same name is loaded; restart to change it")
        return present
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    try:
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickles look themselves up there
        spec.loader.exec_module(module)
    except BaseException as error:  # whatever foreign code raises, a user gets one line
        sys.modules.pop(name, None)
        if is_interrupt(error):
            raise
        raise Layer45Error(f"{_fault_position(error, file)}: cannot be loaded: {_one_line(error)}") from error
    return module


def _fault_position(error: BaseException, file: Path) -> str:
    """The last line of the file that the error came through."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{file}:{line}" if line else str(file)


def _one_line(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(f"{type(error).__name__}: {text}".split())


@dataclass(frozen=True)
class ModuleIndex:
    """All modules found, by name.

    broken: the problems of those whose manifest has any. hidden: a line for each that an earlier one hides.
    """

    modules: Mapping[str, Module]
    broken: Mapping[str, Problems]
    hidden: tuple[str, ...] = ()


def find_modules(
    settings: Settings, place: Place | None = None, problems: Problems | None = None
) -> ModuleIndex:
    """The shipped modules, then those of settings.module_dirs; the default directory may be missing.

    place: of layer45.toml; with problems, missing directories are told of there.
    """
    modules: dict[str, Module] = {}
    broken: dict[str, Problems] = {}
    hidden = []
    for directory in (SHIPPED, *_site_dirs(settings, place, problems)):
        for folder in _folders(directory):
            if folder.name in modules or folder.name in broken:
                hidden.append(f"{folder}: not used; a module {folder.name} was found earlier")
            else:
                _read_folder(folder, modules, broken)
    return ModuleIndex(modules, broken, tuple(hidden))


def _site_dirs(settings: Settings, place: Place | None, problems: Problems | None) -> list[Path]:
    directories = []
    for index, name in enumerate(settings.module_dirs):
        fault = _listing_fault(Path(name))
        if not fault:
            directories.append(Path(name))
        elif name != DEFAULT_MODULE_DIR and place and problems is not None:
            problems.add(place.child("module_dirs", index), f"{name} cannot be read: {fault}")
    return directories


def _listing_fault(directory: Path) -> str:
    try:
        next(directory.iterdir(), None)
    except OSError as error:
        return str(error.strerror)
    return ""


def _folders(directory: Path) -> list[Path]:
    try:
        return sorted(file.parent for file in directory.glob(f"*/{manifests.FILE_NAME}"))
    except OSError:
        return []


def _read_folder(folder: Path, modules: dict[str, Module], broken: dict[str, Problems]) -> None:
    problems = Problems()
    manifest = read_manifest(folder / manifests.FILE_NAME, problems)
    if manifest:
        modules[folder.name] = Module(manifest, folder, folder.parent == SHIPPED)
    else:
        broken[folder.name] = problems
