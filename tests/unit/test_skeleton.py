"""`modules new` and `modules build`: what they write works as it stands, its own test included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layer45.errors import Layer45Error
from layer45.manifest import load_manifest
from layer45.module_build import build_module
from layer45.skeleton import write_module

from .conftest import Configuration


def layer45(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "layer45", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TESTS = {("python", "datagram"): 4, ("cython", "datagram"): 5, ("cython", "stream"): 5}


@pytest.mark.parametrize(("language", "kind"), TESTS)
def test_a_new_module_passes_check_verify_and_its_own_test(
    language: str, kind: str, tmp_path: Path, configuration: Configuration
) -> None:
    site = tmp_path / "my site"
    configuration.settings("")
    (configuration.directory / "layer45.toml").write_text(f'module_dirs = ["{site}"]\n')
    layer45("modules", "new", "stamp", "--language", language, "--kind", kind, "--directory", site)
    if language == "cython":
        built = Path(layer45("modules", "build", "stamp", "--config", configuration.directory).strip())
        assert built.parent == site / "stamp"
    protocol = "tcp" if kind == "stream" else "udp"
    configuration.policies(
        f'[policy.p]\nmatch = {{ protocol = "{protocol}" }}\nchain = [ {{ module = "stamp", mark = "m" }} ]\n'
    )
    assert "stamp" in layer45("check", configuration.directory)
    assert layer45("modules", "verify", "stamp", "--config", configuration.directory).split() == [
        "MODULE", "TRUST", "RESULT", "stamp", "unsigned", "ok",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", site / "stamp"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert f"{TESTS[language, kind]} passed" in done.stdout


@pytest.mark.parametrize(("language", "kind"), TESTS)
def test_no_placeholder_is_left(language: str, kind: str, tmp_path: Path) -> None:
    for path in write_module("stamp", language, tmp_path, kind):
        assert "$" not in path.read_text(), path
    manifest = load_manifest(tmp_path / "stamp/module.toml")
    assert (manifest.language, manifest.kind) == (language, kind)


def test_a_stream_module_is_compiled(tmp_path: Path) -> None:
    with pytest.raises(Layer45Error, match="kind stream cannot be written in Python"):
        write_module("stamp", "python", tmp_path, "stream")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "stamp").mkdir()
    (tmp_path / "stamp/module.toml").write_text("mine")
    with pytest.raises(Layer45Error, match="is there already"):
        write_module("stamp", "python", tmp_path)
    assert (tmp_path / "stamp/module.toml").read_text() == "mine"


def test_what_does_not_compile_is_one_line_with_its_place(tmp_path: Path) -> None:
    write_module("stamp", "cython", tmp_path)
    source = tmp_path / "stamp/stamp.pyx"
    source.write_text(source.read_text().replace("context.counters[MARKED] += 1", "context.nonsense = 1"))
    with pytest.raises(Layer45Error) as caught:
        build_module(tmp_path / "stamp")
    assert len(str(caught.value).splitlines()) == 1
    assert "stamp.pyx:" in str(caught.value)
    assert "nonsense" in str(caught.value)
    assert sorted(path.suffix for path in (tmp_path / "stamp").iterdir()) == [
        ".md",
        ".py",
        ".py",
        ".pyx",
        ".toml",
    ]


def test_building_again_gives_the_new_code(tmp_path: Path) -> None:
    write_module("stamp", "cython", tmp_path)
    first = build_module(tmp_path / "stamp")
    before = first.read_bytes()
    source = tmp_path / "stamp/stamp.pyx"
    source.write_text(source.read_text().replace("return L45_DROP", "return L45_ERROR"))
    assert build_module(tmp_path / "stamp") == first
    assert first.read_bytes() != before


def test_what_is_no_module_is_said(tmp_path: Path) -> None:
    with pytest.raises(Layer45Error, match=r"stamp\.pyx: no such file"):
        build_module(tmp_path / "stamp")
