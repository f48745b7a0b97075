"""What every module must hold: its vectors, and declarations that match its code and its README."""

import ctypes
import importlib
import json
import random
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from layer45.loader import load

from .conftest import Road
from .connection import connected, growth_of, on_wire, reference_of, view_of
from .wire import (
    ACK,
    MILLISECOND,
    Record,
    datagram,
    field_of,
    is_sound,
    options_of,
    segment,
    with_field,
)

MODULES = Path(__file__).parents[2] / "modules"
FOLDERS = sorted(file.parent for file in MODULES.glob("*/module.toml"))
COMPILED = [folder for folder in FOLDERS if (folder / f"{folder.name}.pyx").exists()]
every_module = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
every_compiled = pytest.mark.parametrize("folder", COMPILED, ids=lambda folder: folder.name)

ALL_VECTORS = [
    pytest.param(folder.name, vector, id=f"{folder.name}: {vector['name']}")
    for folder in FOLDERS
    for vector in json.loads((folder / "vectors.json").read_text())
]
STREAM_VECTORS = [each for each in ALL_VECTORS if "stream" in each.values[1]]
VECTORS = [each for each in ALL_VECTORS if each not in STREAM_VECTORS]


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
    fields = map(bytes.fromhex, vector.get("fields", ["00"] * len(packets)))
    packets = [with_field(packet, *field) for packet, field in zip(packets, fields, strict=True)]
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
    if "output_fields" in vector:
        assert [f"{field_of(packet):02x}" for packet in passage.packets] == vector["output_fields"]
        assert all(is_sound(packet) for packet in passage.packets)


@pytest.mark.parametrize(("name", "vector"), STREAM_VECTORS)
def test_vectors_of_streams(driver: Any, tmp_path: Path, name: str, vector: dict[str, Any]) -> None:
    """Segments as (offset in the stream, bytes): the reference says what is on the wire, and so it is."""
    chain = [{"module": name, **vector["parameters"]}]
    connection = connected(driver, tmp_path, chain)
    module = reference_of(chain)
    module.stream = connection.stream
    for (offset, text), wanted in zip(vector["stream"], vector["wire"], strict=True):
        payload = bytes.fromhex(text)
        assert on_wire(module, offset, payload).hex() == wanted
        (got,) = connection.send(True, ACK, offset, payload)
        assert connection.on_wire[-1].payload.hex() == wanted
        assert got.payload == payload


@pytest.mark.parametrize(("name", "vector"), STREAM_VECTORS)
def test_stream_functions_are_those_of_the_reference(name: str, vector: dict[str, Any]) -> None:
    """Pure, within the declared growth, and undone by the other direction."""
    chain, chance = [{"module": name, **vector["parameters"]}], random.Random(1)
    hot, plain = view_of(chain), reference_of(chain)
    bytes_, every = growth_of(chain)
    for first in (0, 1, *(chance.getrandbits(bits) for bits in range(2, 62))):
        content = chance.randbytes(chance.randrange(200))
        before, behind = (hot.inserted(first + more) for more in (0, len(content)))
        assert (before, behind) == (plain.inserted(first), plain.inserted(first + len(content)))
        assert 0 <= behind - before <= bytes_ * -(-len(content) // (every or 1))
        run_bytes = hot.inserted(first + 1) - before
        for skip in range(run_bytes):
            count = chance.randrange(run_bytes - skip + 1)
            part = hot.fill(first, skip, count)
            assert (
                part == plain.fill(first, skip, count) == hot.fill(first, 0, run_bytes)[skip : skip + count]
            )
            assert hot.check(first, skip, part) and plain.check(first, skip, part)
        changed = hot.change("egress", first, content)
        assert changed == (plain.change("egress", first, content) if hasattr(plain, "change") else content)
        assert hot.change("ingress", first, changed) == content
        cut = chance.randrange(len(content) + 1)
        parts = (hot.change("egress", first + at, content[at:to]) for at, to in ((0, cut), (cut, None)))
        assert b"".join(parts) == changed


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


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_stream_modules_have_vectors_of_streams(folder: Path) -> None:
    if manifest(folder)["module"]["kind"] == "stream":
        assert [each for each in STREAM_VECTORS if each.values[0] == folder.name]


@every_compiled
def test_flow_state_is_as_large_as_declared(folder: Path) -> None:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.POINTER(Ops), [ctypes.py_object, ctypes.c_char_p]
    code = importlib.import_module(f"layer45.modules.{folder.name}.{folder.name}")
    ops = pointer(code.ops, b"layer45.ops").contents
    assert ops.abi_version == manifest(folder)["module"]["abi"]
    assert ops.flow_state_bytes == manifest(folder)["module"]["flow_state_bytes"]
