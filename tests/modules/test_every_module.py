"""What every module must hold: its vectors, and declarations that match its code and its README."""

import ctypes
import importlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from layer45.loader import load

from .conftest import Road
from .wire import ACK, MILLISECOND, Record, datagram, options_of, segment

MODULES = Path(__file__).parents[2] / "modules"
FOLDERS = sorted(file.parent for file in MODULES.glob("*/module.toml"))
COMPILED = [folder for folder in FOLDERS if (folder / f"{folder.name}.pyx").exists()]
every_module = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
every_compiled = pytest.mark.parametrize("folder", COMPILED, ids=lambda folder: folder.name)

VECTORS = [
    pytest.param(folder.name, vector, id=f"{folder.name}: {vector['name']}")
    for folder in FOLDERS
    for vector in json.loads((folder / "vectors.json").read_text())
]


def manifest(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "module.toml").read_text())


def code_of(folder: Path) -> str:
    """All compiled code, as it is written; shells are for tests."""
    sources = sorted(each for each in folder.glob("*.p[yx][xd]") if not each.stem.endswith("_shell"))
    return "\n".join(each.read_text() for each in sources)


def packets_of(vector: dict[str, Any]) -> list[Record]:
    payloads = [bytes.fromhex(each) for each in vector["input"]]
    times_ms = vector.get("times_ms", range(len(payloads)))
    if vector.get("protocol") == "tcp":
        packets = segments_of(vector, payloads)
    else:
        packets = [datagram(each) for each in payloads]
    return [Record(each, (1000 + at) * MILLISECOND) for each, at in zip(packets, times_ms, strict=True)]


def segments_of(vector: dict[str, Any], payloads: list[bytes]) -> list[bytes]:
    flags = vector.get("tcp_flags", [ACK] * len(payloads))
    options = vector.get("tcp_options", [""] * len(payloads))
    fields = zip(payloads, vector["tcp_sequences"], flags, map(bytes.fromhex, options), strict=True)
    return [segment(load, at, flags=each, options=more) for load, at, each, more in fields]


def matches(pattern: str, payload: bytes) -> bool:
    """A ? in a vector is half a byte that chance or the check field decides."""
    return re.fullmatch(pattern.replace(" ", "").replace("?", "."), payload.hex()) is not None


@pytest.mark.parametrize("reference", [False, True], ids=["hot", "reference"])
@pytest.mark.parametrize(("name", "vector"), VECTORS)
def test_vectors(road: Road, name: str, vector: dict[str, Any], reference: bool) -> None:
    chain = [{"module": name, **vector["parameters"]}, *vector.get("behind", [])]
    protocol = vector.get("protocol", "udp")
    passage = road(chain, vector["direction"], packets_of(vector), protocol=protocol, reference=reference)
    assert len(passage.payloads) == len(vector["output"])
    for pattern, payload in zip(vector["output"], passage.payloads, strict=True):
        assert matches(pattern, payload), f"expected {pattern}, got {payload.hex()}"
    for pattern, packet in zip(vector.get("output_options", []), passage.packets, strict=False):
        assert matches(pattern, options_of(packet)), f"expected {pattern}, got {options_of(packet).hex()}"


@every_module
def test_every_parameter_counter_and_ratio_stands_in_the_readme(folder: Path) -> None:
    readme, table = (folder / "README.md").read_text(), manifest(folder)
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", readme, re.MULTILINE))
    for name, facts in {**table["param"], **table["counter"], **table.get("ratio", {})}.items():
        assert facts["help"] in rows[name]


@every_module
def test_the_policies_of_the_readme_are_accepted(folder: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    whole = [block for block in blocks if "[policy." in block]
    assert whole
    (tmp_path / "policies").mkdir()
    (tmp_path / "layer45.toml").write_text("")
    for at, block in enumerate(whole):
        (tmp_path / "policies" / f"{at}.toml").write_text(block)
    chains = load(tmp_path).chains
    assert any(each.module.name == folder.name for chain in chains for each in chain.instances)


@every_compiled
def test_code_asks_for_the_declared_parameters_and_counts_the_declared_counters(folder: Path) -> None:
    code, table = code_of(folder), manifest(folder)
    asked = re.findall(r'param_named\(params, count, b"(\w+)"\)', code)
    assert sorted(asked) == sorted(table["param"])
    counters = re.search(r"cdef enum: +# counters.*\n((?:    .*\n)+)", code)
    assert counters
    assert re.findall(r"\w+", counters[1].lower()) == list(table["counter"])


class Ops(ctypes.Structure):
    """The head of l45_ops."""

    _fields_ = [
        (name, ctypes.c_uint32)
        for name in ("abi_version", "struct_bytes", "instance_bytes", "flow_state_bytes")
    ]  # fmt: skip


@every_compiled
def test_flow_state_is_as_large_as_declared(folder: Path) -> None:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.POINTER(Ops), [ctypes.py_object, ctypes.c_char_p]
    code = importlib.import_module(f"layer45.modules.{folder.name}.{folder.name}")
    ops = pointer(code.ops, b"layer45.ops").contents
    assert ops.abi_version == manifest(folder)["module"]["abi"]
    assert ops.flow_state_bytes == manifest(folder)["module"]["flow_state_bytes"]
