"""A module: what it declares, the files it is made of, and its code, loaded when it is wanted."""

import importlib
import os
from dataclasses import dataclass, field
from hashlib import blake2s
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from layer45.errors import Layer45Error
from layer45.manifest import Manifest
from layer45.module_code import import_shipped, run_compiled, run_python
from layer45.module_content import Files
from layer45.module_standing import Standing


@dataclass
class Module:
    """A module found on disk.

    files: all that counts of its folder, as it was read and judged; its code runs from these. None for a
    shipped one: it is a part of this program, on disk and in memory, and its compiled code, once loaded,
    stays as it is while the process lives. standing: of one that is not shipped.
    ops: the PyCapsule of a compiled module. python_class: the class `Module` of one written in Python.
    Both are None before load_code.
    """

    manifest: Manifest = field(repr=False)
    folder: Path
    files: Files | None = field(default=None, repr=False)
    standing: Standing | None = None
    ops: Any = field(default=None, repr=False)
    python_class: type | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The module's and its folder's name."""
        return self.manifest.name

    @property
    def shipped(self) -> bool:
        """Whether it came with this program."""
        return self.files is None

    @property
    def code(self) -> Path | None:
        """The file with the code; None if it is not there (a compiled module that was not built)."""
        suffixes = [".py"] if self.manifest.language == "python" else EXTENSION_SUFFIXES
        names = (f"{self.name}{suffix}" for suffix in suffixes)
        return next((self.folder / name for name in names if self.has(name)), None)

    def has(self, name: str) -> bool:
        """Whether a file is in its folder."""
        return os.path.isfile(self.folder / name) if self.files is None else name in self.files  # noqa: PTH113

    def code_digest(self) -> str:
        """Changes with the code that a reload takes up; empty for what stays as it was loaded."""
        if self.code is None or (self.shipped and self.manifest.language != "python"):
            return ""
        try:
            return blake2s(self._read(self.code.name), digest_size=16).hexdigest()
        except Layer45Error:
            return "unreadable"  # load_code says why

    def load_code(self) -> None:
        """Sets ops or python_class. Raises Layer45Error, one line: there is no such code, or it is wrong."""
        if self.ops or self.python_class:
            return
        if self.manifest.language == "python":
            self.python_class = self._class_in(f"{self.name}.py", self.name)
        else:
            self.ops = self._checked_ops()

    def load_reference(self) -> type:
        """The class `Module` of reference.py, which can stand in for compiled code. Raises Layer45Error."""
        return self._class_in("reference.py", f"{self.name}.reference")

    def _read(self, name: str) -> bytes:
        file = self.folder / name
        if not self.has(name):
            raise Layer45Error(f"{file}: no such file; module {self.name} needs it")
        try:
            return file.read_bytes() if self.files is None else self.files[name]
        except OSError as error:
            raise Layer45Error(f"{file}: cannot be read: {error.strerror}") from None

    def _class_in(self, name: str, dotted: str) -> type:
        file = self.folder / name
        found = getattr(run_python(dotted, file, self._read(name)), "Module", None)
        if not isinstance(found, type):
            raise Layer45Error(f"{file}: expected a class Module")
        if not any(hasattr(found, method) for method in self._methods):
            *most, last = self._methods
            raise Layer45Error(f"{file}: class Module has neither {', '.join(most)} nor {last}")
        return found

    @property
    def _methods(self) -> tuple[str, ...]:
        """One of which a class `Module` must have."""
        stream = ("inserted", "change") if self.manifest.kind == "stream" else ()
        return ("egress", "ingress", *stream)

    def _checked_ops(self) -> Any:
        file = self.code
        if file is None:
            raise Layer45Error(
                f"{self.folder}: module {self.name} is not built; expected {self.name}.*.so in it"
            )
        if self.shipped:
            code = import_shipped(self.name, file)
        else:
            code = run_compiled(self.name, file, self._read(file.name))
        ops = getattr(code, "ops", None)
        _check_ops(self.manifest, ops, file)
        return ops


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
