"""A configuration directory to write into, with module folders that hold only what a test says."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from layer45.errors import ConfigError
from layer45.loader import Plan, load

MODULE = {
    "version": "1.0.0", "abi": 1, "kind": "datagram", "summary": "For a test", "inverse": "self",
    "transports": ["udp"], "directions": ["egress", "ingress"], "reads": "payload",
}  # fmt: skip


def section(name: str, table: dict[str, Any]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {toml(value)}" for key, value in table.items()), ""])


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


@dataclass
class Configuration:
    """layer45.toml, policies/ and a site folder of modules below one directory."""

    directory: Path
    settings_text: str = ""
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.directory / "policies").mkdir(parents=True)
        (self.directory / "modules").mkdir()
        self.settings("")

    def settings(self, text: str) -> None:
        (self.directory / "layer45.toml").write_text('module_dirs = ["modules"]\n' + text)

    def policies(self, text: str, file: str = "a.toml") -> None:
        (self.directory / "policies" / file).write_text(text)

    def module(self, name: str, *, params: dict[str, Any] | None = None, code: str = "", **keys: Any) -> Path:
        """Writes module.toml; keys None are left out. code: of a module in Python."""
        folder = self.directory / "modules" / name
        folder.mkdir(exist_ok=True)
        table = {"name": name, **MODULE, **keys, **({"language": "python"} if code else {})}
        table = {key: value for key, value in table.items() if value is not None}
        sections = {"module": table, **{f"param.{key}": each for key, each in (params or {}).items()}}
        (folder / "module.toml").write_text("\n".join(section(*each) for each in sections.items()))
        if code:
            (folder / f"{name}.py").write_text(code)
        return folder

    def load(self, previous: Plan | None = None) -> Plan:
        return load(self.directory, previous)

    def problems(self) -> list[str]:
        """What load complains of, files relative to the directory."""
        with pytest.raises(ConfigError) as caught:
            self.load()
        assert all(len(line.splitlines()) == 1 for line in caught.value.problems)
        return [line.replace(f"{self.directory}/", "") for line in caught.value.problems]


@pytest.fixture
def configuration(tmp_path: Path) -> Configuration:
    return Configuration(tmp_path / "etc")


@pytest.fixture
def new_configuration(tmp_path: Path) -> Callable[[], Configuration]:
    """For tests that need a fresh one for each example."""
    count = iter(range(1 << 30))
    return lambda: Configuration(tmp_path / f"etc{next(count)}")
