"""Who may import whom. The fast path, the modules and the rules never reach back into the control plane."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w., ]+))", re.MULTILINE)
OURS = re.compile(r"layer45\.(fastpath|modules|rules)(\.|$)")
INLINE = {path.stem for path in ROOT.glob("fastpath/*.pxd") if not path.with_suffix(".pyx").exists()} | {
    "packet",
    "reed_solomon",  # arithmetic, and nothing of the engine
    "tcp",  # a header's fields and options
}
SLOW = ("scapy", "pytest", "matplotlib")  # never in memory of a daemon that serves compiled modules


def plain_imports(source: Path) -> Iterator[str]:
    """Names that a Python file imports, at whatever depth."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = "." * node.level + (node.module or "")
            yield from (f"{package}.{alias.name}".replace("...", "..") for alias in node.names)


def compiled_imports(source: Path) -> Iterator[str]:
    """Names that a Cython file imports or cimports."""
    for package, names in IMPORT.findall(source.read_text()):
        yield from [package] if package else [name.split()[0] for name in names.split(",")]


def imports(source: Path) -> list[str]:
    return list(plain_imports(source) if source.suffix == ".py" else compiled_imports(source))


def sources(*folders: str) -> list[Path]:
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.p*"))
    return sorted(path for path in found if path.suffix in (".py", ".pyx", ".pxd"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("source", sources("fastpath", "modules", "rules"), ids=named)
def test_nothing_below_reaches_back_into_the_control_plane(source: Path) -> None:
    ours = [name for name in imports(source) if name.split(".")[0] == "layer45"]
    assert not [name for name in ours if not OURS.match(name)]
    assert not [name for name in imports(source) if name.startswith("..")], "it climbs, and hides where to"


@pytest.mark.parametrize("source", [s for s in sources("modules") if s.suffix != ".py"], ids=named)
def test_hot_code_of_a_module_knows_the_abi_inline_code_and_its_own_folder_only(source: Path) -> None:
    own = f"layer45.modules.{source.parent.name}."
    for name in imports(source):
        if name.startswith("layer45.") and not name.startswith(own):
            assert name.removeprefix("layer45.fastpath.") in INLINE, name


@pytest.mark.parametrize("source", sources("fastpath"), ids=named)
def test_the_fast_path_knows_no_module_and_no_rule(source: Path) -> None:
    assert not [name for name in imports(source) if name.startswith(("layer45.modules", "layer45.rules"))]


@pytest.mark.parametrize("source", sources("fastpath", "modules", "rules"), ids=named)
def test_scapy_is_for_the_slow_path(source: Path) -> None:
    assert not [name for name in imports(source) if name.split(".")[0] == "scapy"]


def test_a_daemon_starts_without_the_slow_and_the_heavy() -> None:
    loaded = "print(*{name.split('.')[0] for name in sys.modules})"
    asked = f"import sys, layer45.cli, layer45.daemon, layer45.engine; {loaded}"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not set(SLOW) & set(done.stdout.split())


def test_the_scanner_sees_what_it_should(tmp_path: Path) -> None:
    compiled, plain = tmp_path / "a.pyx", tmp_path / "b.py"
    compiled.write_text(
        "from layer45.policy cimport (\n  x,\n)\n    import layer45.loader as l, os\ncimport layer45.cli\n"
    )
    plain.write_text("def f():\n    from layer45.daemon import g\n    from .. import policy\n")
    assert imports(compiled) == ["layer45.policy", "layer45.loader", "os", "layer45.cli"]
    assert imports(plain) == ["layer45.daemon.g", "...policy".replace("...", "..")]
