# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""Modules on disk: found, hidden, broken; code loaded, and one line when it cannot be."""

import importlib
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layer45.config import Settings
from layer45.errors import Layer45Error
from layer45.module_build import build_module
from layer45.modulefolder import Module, ModuleIndex, find_modules

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


def copied(directory: Path) -> Module:
    """The built module tag as a site module of another name."""
    tag = find_modules(Settings()).modules["tag"]
    assert tag.code, "build the extensions first"
    (directory / "tag_again").mkdir(parents=True)
    shutil.copy(tag.code, directory / "tag_again" / tag.code.name.replace("tag", "tag_again"))
    text = (tag.folder / "module.toml").read_text().replace('name = "tag"', 'name = "tag_again"')
    (directory / "tag_again" / "module.toml").write_text(text)
    return find_modules(Settings(module_dirs=(str(directory),))).modules["tag_again"]


def test_an_extension_of_another_name_is_no_module(tmp_path: Path) -> None:
    expected = "dynamic module does not define module export function (PyInit_tag_again)"
    assert fault(copied(tmp_path)).endswith(f"cannot be loaded: ImportError: {expected}")


def tallied(directory: Path, change: Callable[[str], str] = str) -> Module:
    """The module of tests, compiled as a site module."""
    if not (directory / "tally").exists():
        shutil.copytree(Path(__file__).parent / "tally", directory / "tally")
        build_module(directory / "tally")
    manifest = directory / "tally/module.toml"
    manifest.write_text(change(manifest.read_text()))
    return find_modules(Settings(module_dirs=(str(directory),))).modules["tally"]


def test_compiled_code_is_loaded_once_wherever_it_stands(tmp_path: Path) -> None:
    before = sys.modules.get("tally")
    first = tallied(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = tallied(tmp_path / "b")
    first.load_code()
    second.load_code()
    assert second.ops is first.ops is not None
    assert sys.modules.get("tally") is before


def test_other_compiled_code_is_loaded_beside_the_first(tmp_path: Path) -> None:
    first = tallied(tmp_path)
    assert first.code
    old = first.code.read_bytes()
    first.code.write_bytes(old + b"\0")  # the loader does not look at what stands behind
    second = tallied(tmp_path)
    for module in (first, second):
        module.load_code()
    assert first.ops is not second.ops
    assert first.code_digest() != second.code_digest()
    first.code.write_bytes(old)
    third = tallied(tmp_path)
    third.load_code()
    assert third.ops is first.ops


def test_the_code_that_runs_is_the_code_that_was_read(configuration: Any, tmp_path: Path) -> None:
    """Whatever is written between the two, to compiled code and to Python's."""
    folder = configuration.module("bang", code=CODE)
    bang, tally = only(configuration, "bang"), tallied(tmp_path / "site")
    (folder / "bang.py").write_text("raise SystemExit('not what was read')")
    (folder / "reference.py").write_text("raise SystemExit('not what was read')")
    assert tally.code
    tally.code.write_bytes(b"not what was read")
    for module in (bang, tally):
        module.load_code()
    assert hasattr(bang.python_class, "egress")
    assert tally.ops
    shutil.rmtree(folder)
    bang.python_class = None
    bang.load_code()
    assert fault_of_reference(bang) == "no such file; module bang needs it"


def fault_of_reference(module: Module) -> str:
    with pytest.raises(Layer45Error) as caught:
        module.load_reference()
    return str(caught.value).partition("reference.py: ")[2]


def test_nothing_is_written_beside_the_code(configuration: Any) -> None:
    folder = configuration.module("bang", code=CODE)
    only(configuration, "bang").load_code()
    assert sorted(path.name for path in folder.iterdir()) == ["bang.py", "module.toml"]


def test_a_name_that_python_has_is_not_taken_from_it(tmp_path: Path) -> None:
    """Cython would enter the module as `colorsys`, and the next import of that would find it."""
    source = (Path(__file__).parent / "tally/tally.pyx").read_text()
    (tmp_path / "colorsys").mkdir()
    (tmp_path / "colorsys/colorsys.pyx").write_text(source)
    build_module(tmp_path / "colorsys")
    text = (Path(__file__).parent / "tally/module.toml").read_text().replace('"tally"', '"colorsys"')
    (tmp_path / "colorsys/module.toml").write_text(text)
    module = find_modules(Settings(module_dirs=(str(tmp_path),))).modules["colorsys"]
    module.load_code()
    assert hasattr(importlib.import_module("colorsys"), "rgb_to_hsv")


def test_a_manifest_must_say_the_flow_state_that_the_code_has(tmp_path: Path) -> None:
    wrong = tallied(tmp_path, lambda text: text.replace("flow_state_bytes = 40", "flow_state_bytes = 1"))
    assert fault(wrong).endswith(": module.toml says flow_state_bytes = 1, the code has 40")


def test_a_manifest_must_have_the_counters_that_the_code_keeps_by_flow(tmp_path: Path) -> None:
    wrong = tallied(tmp_path, lambda text: re.sub(r"\[counter.seen_bytes\](?s:.*)", "", text))
    expected = ": module.toml has 1 counters, the code keeps the first 2 for each flow"
    assert fault(wrong).endswith(expected)
