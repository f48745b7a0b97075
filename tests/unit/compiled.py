"""Compiles an extension that belongs to tests, as `layer45 modules build` compiles a site module."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from layer45.module_build import build_module


def compiled(folder: Path, scratch: Path) -> Any:
    """The extension NAME of a folder NAME with NAME.pyx, built in scratch."""
    shutil.copytree(folder, scratch / folder.name)
    spec = importlib.util.spec_from_file_location(folder.name, build_module(scratch / folder.name))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
