"""How the house is built: small files named for what they are, one folder a module, no trace of a machine."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST_FILE_LINES = 400
LONGEST_MODULE_LINES = 150  # of code: no blank line, comment, docstring or import
CODE = {".py", ".pyx", ".pxd", ".c", ".h"}
VAGUE = {"util", "utils", "common", "helper", "helpers", "manager", "misc"}
ELSEWHERE = re.compile(
    r"/(?:work|home|root|opt)/\w|https?://(?!(?:www\.)?(?:example\.|rfc-editor\.org|kernel\.org))\S+pypi"
)


def own_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


FILES = own_files()
SOURCES = [path for path in FILES if path.suffix in CODE]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def code_lines(path: Path) -> int:
    bare = re.sub(
        r'"""(?s:.*?)"""|^from .* c?import (?:\((?s:.*?)\)|.*)$|#.*$',
        "",
        path.read_text(),
        flags=re.MULTILINE,
    )
    return len([line for line in bare.splitlines() if line.strip()])


def test_files_are_small() -> None:
    assert {named(path): lines(path) for path in SOURCES if lines(path) > LONGEST_FILE_LINES} == {}


def test_hot_code_of_a_module_is_small() -> None:
    hot = [path for path in SOURCES if path.suffix == ".pyx" and path.parent.parent == ROOT / "modules"]
    assert hot
    assert {named(path): code_lines(path) for path in hot if code_lines(path) > LONGEST_MODULE_LINES} == {}


def test_files_say_what_they_are() -> None:
    words = {named(path): set(re.split(r"[_\W]", path.stem)) for path in FILES}
    assert [name for name, parts in words.items() if parts & VAGUE] == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    texts = [path for path in FILES if path.suffix in CODE | {".toml", ".md", ""} and path != Path(__file__)]
    assert [named(path) for path in texts if ELSEWHERE.search(path.read_text(errors="replace"))] == []


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in ROOT.glob("modules/*/module.toml")), ids=named
)
def test_a_module_is_a_folder_with_all_its_parts(folder: Path) -> None:
    manifest = (folder / "module.toml").read_text()
    assert (folder / "README.md").is_file()
    if 'language = "python"' not in manifest:
        assert (folder / f"{folder.name}.pyx").is_file()
        assert (folder / "reference.py").is_file()
    else:
        assert (folder / f"{folder.name}.py").is_file()


def test_everything_below_tests_is_named_after_what_it_tests() -> None:
    kinds = {"unit", "modules", "replay", "netns", "streams", "fuzz"}
    tests = [path.relative_to(ROOT / "tests") for path in FILES if path.is_relative_to(ROOT / "tests")]
    strays = [path for path in tests if path.parts[0] not in kinds]
    assert [str(path) for path in strays if path.name not in ("__init__.py", "conftest.py")] == []
