# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""Modules on disk: found, hidden, broken; code loaded, and one line when it cannot be."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layer45.config import Settings
from layer45.errors import Layer45Error
from layer45.manifest import load_manifest
from layer45.modulefolder import Module, ModuleIndex, find_modules

from .compiled import compiled

CODE = """
class Module:
    def __init__(self, parameters, count):
        self.parameters = parameters

    def egress(self, packet):
        packet.payload = b"!" + packet.payload
"""


def find(configuration: Any) -> ModuleIndex:
    return find_modules(Settings(module_dirs=(str(configuration.directory / "modules"),)))


def only(configuration: Any, name: str) -> Module:
    return find(configuration).modules[name]


def fault(module: Module) -> str:
    with pytest.raises(Layer45Error) as caught:
        module.load_code()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value).removeprefix(f"{module.folder}").removeprefix("/")


def test_shipped_modules_are_right() -> None:
    index = find_modules(Settings())
    assert {name: each.sorted_lines() for name, each in index.broken.items()} == {}
    assert index.modules
    assert all(module.shipped for module in index.modules.values())


def test_python_code_is_loaded_on_demand(configuration: Any) -> None:
    configuration.module("bang", code=CODE)
    module = only(configuration, "bang")
    assert not module.shipped
    assert module.python_class is None
    module.load_code()
    assert module.ops is None
    assert module.python_class is not None
    assert module.python_class({"a": 1}, print).parameters == {"a": 1}


def test_changed_python_code_is_taken_up_by_the_next_load(configuration: Any) -> None:
    configuration.module("bang", code=CODE)
    first = only(configuration, "bang")
    first.load_code()
    configuration.module("bang", code=CODE.replace("egress", "ingress"))
    second = only(configuration, "bang")
    second.load_code()
    assert hasattr(first.python_class, "egress")
    assert hasattr(second.python_class, "ingress")
    assert not hasattr(second.python_class, "egress")


def test_dataclasses_work_in_python_code(configuration: Any) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass X:\n    a: int\n"
    configuration.module("neat", code=text + CODE)
    only(configuration, "neat").load_code()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("x = 1", "bad.py: expected a class Module"),
        ("Module = 1", "bad.py: expected a class Module"),
        ("class Module: pass", "bad.py: class Module has neither egress nor ingress"),
        ("\n\nx = (", "bad.py:3: cannot be loaded: SyntaxError: '(' was never closed"),
        ("\ndef f():\n    raise ValueError('a\\nb')\nf()", "bad.py:3: cannot be loaded: ValueError: a b"),
        ("import sys\nsys.exit(3)", "bad.py:2: cannot be loaded: SystemExit: 3"),
        ("import no_such_thing", "bad.py:1: cannot be loaded: ModuleNotFoundError: No module named 'no_such_thing'"),
    ],
)  # fmt: skip
def test_python_code_that_cannot_be_loaded(configuration: Any, code: str, expected: str) -> None:
    configuration.module("bad", code=code)
    assert fault(only(configuration, "bad")) == expected


def test_code_that_is_not_there(configuration: Any) -> None:
    (configuration.module("gone", code=CODE) / "gone.py").unlink()
    assert fault(only(configuration, "gone")) == "gone.py: no such file; module gone needs it"
    configuration.module("raw")
    module = only(configuration, "raw")
    assert module.code is None
    assert fault(module) == ": module raw is not built; expected raw.*.so in it"


def test_a_file_that_is_no_extension(configuration: Any) -> None:
    folder = configuration.module("fake")
    (folder / "fake.so").write_text("x")
    assert fault(only(configuration, "fake")).startswith("fake.so: cannot be loaded: ImportError: ")


def test_a_reference_can_stand_in(configuration: Any) -> None:
    folder = configuration.module("raw")
    (folder / "reference.py").write_text(CODE)
    assert hasattr(only(configuration, "raw").load_reference(), "egress")


def test_a_broken_manifest_breaks_that_module_only(configuration: Any) -> None:
    configuration.module("good")
    configuration.module("bad", abi=2)
    index = find(configuration)
    assert "good" in index.modules
    assert list(index.broken) == ["bad"]


def test_shipped_modules_hide_others_of_their_name(configuration: Any) -> None:
    folder = configuration.module("tag")
    index = find(configuration)
    assert index.modules["tag"].shipped
    assert index.hidden == (f"{folder}: not used; a module tag was found earlier",)


def test_folders_without_a_manifest_are_no_modules(configuration: Any) -> None:
    (configuration.directory / "modules" / "__pycache__").mkdir()
    assert "__pycache__" not in find(configuration).modules


def test_a_named_directory_must_be_there(configuration: Any) -> None:
    configuration.settings("")
    (configuration.directory / "layer45.toml").write_text('module_dirs = ["modules", "none"]')
    expected = f"{configuration.directory}/none cannot be read: No such file or directory"
    assert configuration.problems() == [
        f"layer45.toml:1: module_dirs[1]: {expected}".replace(f"{configuration.directory}/", "")
    ]


def shipped_and_built() -> list[Module]:
    return [module for module in find_modules(Settings()).modules.values() if module.code]


@pytest.mark.parametrize("module", shipped_and_built(), ids=lambda module: module.name)
def test_built_code_fits_its_manifest(module: Module) -> None:
    module.load_code()
    assert (module.ops is None) == (module.manifest.language == "python")
    again = find_modules(Settings()).modules[module.name]
    again.load_code()
    assert again.ops is module.ops


def copied(folder: Path) -> Module:
    """The built module tag as a site module in another folder."""
    tag = find_modules(Settings()).modules["tag"]
    assert tag.code, "build the extensions first"
    folder.mkdir(parents=True)
    shutil.copy(tag.code, folder)
    return Module(tag.manifest, folder, shipped=False)


def test_compiled_code_of_a_site_folder_is_loaded_once(tmp_path: Path) -> None:
    module, again = copied(tmp_path / "a" / "tag"), copied(tmp_path / "b" / "tag")
    module.load_code()
    same = Module(module.manifest, module.folder, shipped=False)
    same.load_code()
    assert same.ops is module.ops
    assert fault(again).endswith(f"{module.code} of the same name is loaded; restart to change it")
    del sys.modules["layer45_site_modules.tag.tag"]


def test_a_manifest_must_say_the_flow_state_that_the_code_has(tmp_path: Path) -> None:
    module = copied(tmp_path / "tag")
    wrong = Module(replace(module.manifest, flow_state_bytes=1), module.folder, shipped=False)
    real = module.manifest.flow_state_bytes
    assert fault(wrong).endswith(f": module.toml says flow_state_bytes = 1, the code has {real}")
    del sys.modules["layer45_site_modules.tag.tag"]


def test_a_manifest_must_have_the_counters_that_the_code_keeps_by_flow(tmp_path: Path) -> None:
    compiled(Path(__file__).parent / "tally", tmp_path)
    module = Module(load_manifest(tmp_path / "tally/module.toml"), tmp_path / "tally", shipped=False)
    module.load_code()
    wrong = Module(replace(module.manifest, counters={"seen": ""}), module.folder, shipped=False)
    expected = ": module.toml has 1 counters, the code keeps the first 2 for each flow"
    assert fault(wrong).endswith(expected)
    del sys.modules["layer45_site_modules.tally.tally"]
