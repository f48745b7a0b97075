"""What is built is what is installed: a wheel from a checkout, one from the sdist, and an editable install.

Each goes into a fresh environment of its own; the packages we depend on come from this one, by path.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COMPILED = sorted(
    ".".join(("layer45", *source.relative_to(ROOT).with_suffix("").parts))
    for source in [*ROOT.glob("fastpath/*.pyx"), *ROOT.glob("modules/*/*.pyx")]
)
MODULES = sorted(path.parent.name for path in ROOT.glob("modules/*/module.toml"))
SEE = """
import importlib, pathlib, sys
import layer45
root = pathlib.Path(layer45.__file__).parent
for name in sys.argv[2].split():
    importlib.import_module(name)
for name in sys.argv[3].split():
    assert (root / "modules" / name / "module.toml").is_file(), name
for name in ("abi.h", "abi.pxd", "packet.pxd", "checksum.pxd"):
    assert (root / "fastpath" / name).is_file(), name
print(root)
"""
QUICK = {**os.environ, "CFLAGS": "-O0"}  # this is about where files land, not about speed


def run(*words: object, **options: Any) -> str:
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 600, **options}
    done = subprocess.run(list(map(str, words)), check=False, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return str(done.stdout)


def copy_of_the_checkout(to: Path) -> Path:
    """What git would hand out, and what is not committed yet; symlinks stay symlinks."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() or source.exists():
            shutil.copy2(source, target, follow_symlinks=False)
    return to


def build(kind: str, tree: Path, to: Path) -> Path:
    """`python -m build` without isolation: the tools are those of this environment."""
    run(sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check", f"--{kind}",
        "--outdir", to, tree, env=QUICK)  # fmt: skip
    (made,) = to.iterdir()
    return made


class Environment:
    """A fresh virtual environment, with one package installed from a wheel."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.python = folder / "bin" / "python"
        run(sys.executable, "-m", "pip", "--python", self.python, "install", "--no-deps", "--no-index", wheel)
        self.site = next(folder.glob("lib/python*/site-packages"))
        (self.site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def layer45(self, *words: str) -> str:
        return run(self.folder / "bin" / "layer45", *words, cwd=self.folder)

    def works(self) -> Path:
        """Everything compiled can be imported, every manifest is there; where the package was found."""
        names = " ".join(COMPILED), " ".join(MODULES)
        return Path(run(self.python, "-I", "-c", SEE, "-", *names, cwd=self.folder).strip())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def sdist(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tree, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tree, tmp_path_factory.mktemp("wheel"))


def test_house_has_compiled_modules() -> None:
    assert "layer45.fastpath.packet" in COMPILED
    assert {"tag", "scramble", "drop"} <= set(MODULES)


def test_a_wheel_from_the_checkout_works(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", wheel)
    assert environment.works() == environment.site / "layer45"
    assert "doctor" in environment.layer45("--help")


def test_a_wheel_holds_what_site_modules_need_and_no_more(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "layer45/fastpath/abi.h" in names
    assert not [name for name in names if name.endswith((".c", ".pyx", ".o"))]
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"layer45"}


def test_a_wheel_from_the_sdist_works(sdist: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(sdist, tmp_path)
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert not list(unpacked.rglob("*.c")), "an sdist holds sources, not what was generated from them"
    environment = Environment(tmp_path / "venv", build("wheel", unpacked, tmp_path / "made"))
    assert environment.works() == environment.site / "layer45"
    assert "doctor" in environment.layer45("--help")


def test_an_editable_install_works(tree: Path, tmp_path: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:  # compiled already: so the editable build finds it in place
        for name in archive.namelist():
            if name.endswith(".so"):
                archive.extract(name, tree)
    hook = f"from setuptools import build_meta; build_meta.build_editable({str(tmp_path)!r})"
    run(sys.executable, "-c", hook, cwd=tree, env=QUICK)
    (made,) = tmp_path.glob("*.whl")
    environment = Environment(tmp_path / "venv", made)
    assert environment.works() == tree / "layer45"
    assert "doctor" in environment.layer45("--help")


def test_the_three_links_are_relative_symlinks() -> None:
    for name in ("fastpath", "modules", "rules"):
        link = ROOT / "layer45" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..") / name
