# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""module.toml: what is read, one line for each thing that is wrong, and values validated against it."""

from pathlib import Path

import pytest

from layer45.errors import ConfigError
from layer45.growth import Growth
from layer45.manifest import Manifest, load_manifest
from layer45.problems import Place, Problems
from layer45.ratio import Ratio

HEAD = """\
[module]
name = "tag"
version = "1.0.0"
abi = 1
kind = "datagram"
summary = "One line"
inverse = "self"
transports = ["udp"]
directions = ["egress", "ingress"]
reads = "payload"
"""  # 10 lines

WHOLE = (
    HEAD
    + """\
language = "cython"
gso = false
growth_bytes = { front = 0, back = "12 + len(id)" }
flow_state_bytes = 24
emits = ["egress"]
holds = []
provides = ["sequence"]
runs_after = ["compress"]
runs_before = ["fec"]
[param.id]
type = "bytes"
unit = "bytes"
required = true
min_bytes = 1
max_bytes = 32
help = "identity to carry"
[param.mode]
type = "choice"
choices = ["hash", "sequence"]
default = "hash"
needs = { sequence = "sequence" }
help = "how"
[param.count]
type = "integer"
default = 3
minimum = 1
maximum = 9
help = "how many"
[counter.bad_magic]
help = "ingress datagrams without our magic"
[counter.another]
help = "x"
notice = true
[ratio.share]
of = ["bad_magic"]
to = ["bad_magic", "another"]
help = "share of the bad"
"""
)


def read(directory: Path, text: str, folder: str = "tag") -> Manifest:
    file = directory / folder / "module.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return load_manifest(file)


def problems(directory: Path, text: str, folder: str = "tag") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(directory, text, folder)
    return [line.removeprefix(f"{directory}/{folder}/module.toml:") for line in caught.value.problems]


def test_every_key(tmp_path: Path) -> None:
    manifest = read(tmp_path, WHOLE)
    assert (manifest.name, manifest.kind, manifest.language, manifest.flow_state_bytes) == (
        "tag",
        "datagram",
        "cython",
        24,
    )
    assert (manifest.emits, manifest.holds, manifest.provides) == (("egress",), (), ("sequence",))
    assert (manifest.runs_after, manifest.runs_before) == (("compress",), ("fec",))
    assert (manifest.growth_front, manifest.growth_back) == (Growth(), Growth(12, sized=("id",)))
    assert list(manifest.parameters) == ["id", "mode", "count"]
    assert next(iter(manifest.counters.items())) == ("bad_magic", "ingress datagrams without our magic")
    assert manifest.ratios == {"share": Ratio(("bad_magic",), ("bad_magic", "another"), "share of the bad")}
    assert manifest.notices == ("another",)
    assert list(manifest.helps) == ["bad_magic", "another", "share"]
    assert manifest.parameters["mode"].needs == {"sequence": "sequence"}
    assert manifest.parameters["count"].default == 3


def test_defaults(tmp_path: Path) -> None:
    manifest = read(tmp_path, HEAD)
    assert (manifest.language, manifest.gso, manifest.flow_state_bytes) == ("cython", False, 0)
    assert (manifest.parameters, manifest.counters, manifest.ratios, manifest.emits) == ({}, {}, {}, ())
    assert manifest.growth_back.evaluate({}) == 0


def changed(key: str, line: str) -> str:
    """HEAD with another line for a key."""
    return "".join(line + "\n" if each.startswith(f"{key} ") else each for each in HEAD.splitlines(True))


def ratio(of: str = '["lost"]', to: str = '["lost", "found"]', name: str = "share", rest: str = "") -> str:
    """HEAD with two counters and a ratio of them, which begins in line 15."""
    counters = '[counter.lost]\nhelp = "x"\n[counter.found]\nhelp = "y"\n'
    return f'{HEAD}{counters}[ratio.{name}]\nof = {of}\nto = {to}\nhelp = "z"\n{rest}'


NAME = "expected a name of lower-case letters, digits and _, a letter first"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (changed("name", 'name = "tga"'), ['2: module.name: expected the folder\'s name "tag", got "tga"']),
        (changed("abi", "abi = 2"), ["4: module.abi: expected 1, which this engine has, got 2"]),
        (changed("abi", "ab = 1"), ["1: module.abi: missing; expected integer", '4: module.ab: unknown key, did you mean "abi"?']),
        (changed("kind", 'kind = "datagrm"'), ['5: module.kind: expected one of "datagram", "segment", "stream", got "datagrm", did you mean "datagram"?']),
        (changed("transports", "transports = []"), ["8: module.transports: expected at least one value"]),
        (changed("transports", 'transports = ["sctp"]'), ['8: module.transports: expected list of one of "tcp", "udp", got a list']),
        (changed("directions", 'directions = ["egress"]\nholds = ["ingress"]'), ["10: module.holds: ingress is not among the module's directions"]),
        (HEAD + 'looks_only = true\nemits = ["egress"]\nholds = ["ingress"]',
         ["12: module.emits: expected none, for looks_only = true", "13: module.holds: expected none, for looks_only = true"]),
        (HEAD + "looks_only = true\ngrowth_bytes = { back = 1 }", ["12: module.growth_bytes: expected no growth, for looks_only = true"]),
        (changed("kind", 'kind = "stream"').replace('["udp"]', '["tcp"]') + "looks_only = true\nstream_growth = { bytes = 1, every = 9 }",
         ['5: module.kind: expected "datagram" or "segment", for looks_only = true', "12: module.stream_growth: expected no growth, for looks_only = true"]),
        (HEAD + "looks_only = 1", ["11: module.looks_only: expected true or false, got 1"]),
        (HEAD + 'runs_after = ["tag"]', ["11: module.runs_after: names the module itself"]),
        (HEAD + "growth_bytes = 4", ["11: module.growth_bytes: expected { front = …, back = … }, got 4"]),
        (HEAD + "growth_bytes = { bck = 4 }", ['11: module.growth_bytes.bck: unknown key, did you mean "back"?']),
        (HEAD + 'growth_bytes = { back = "len(id)" }', ['11: module.growth_bytes.back: no parameter "id"']),
        (HEAD + 'growth_bytes = { back = "n" }\n[param.n]\ntype = "integer"\nhelp = ""\nrequired = true',
         ["11: module.growth_bytes.back: parameter n needs minimum >= 0 to stand for a growth"]),
        (HEAD + "flow_state_bytes = -1", ["11: module.flow_state_bytes: expected integer 0..1048576, got -1"]),
        (HEAD + 'language = "python"\nflow_state_bytes = 8', ["12: module.flow_state_bytes: expected 0: Python code keeps its state in packet.flow.state"]),
        (changed("kind", 'kind = "stream"\nlanguage = "python"').replace('["udp"]', '["tcp"]'),
         ['6: module.language: expected "cython": a module of kind stream cannot be written in Python']),
        (HEAD + "stream_growth = { byte = 4 }", ['11: module.stream_growth.byte: unknown key, did you mean "bytes"?']),
        (HEAD + "[params.x]", ['11: params: unknown key, did you mean "param"?']),
        (HEAD + "[param.x]", ["11: param.x.type: missing; expected one of " + ", ".join(f'"{each}"' for each in sorted(("integer", "number", "boolean", "text", "bytes", "choice", "range")))]),
        (HEAD + '[param.x]\ntype = "integer"', ["11: param.x.help: missing; expected text"]),
        (HEAD + '[param.x]\ntype = "integer"\nhelp = ""', ["11: param.x: has neither default nor required = true; expected one of them"]),
        (HEAD + '[param.x]\ntype = "integer"\nhelp = ""\ndefault = 1\nrequired = true', ["11: param.x: has both default and required = true; expected one of them"]),
        (HEAD + '[param.x]\ntype = "integer"\nhelp = ""\ndefault = 0\nminimum = 1', ["14: param.x.default: expected integer >= 1, got 0"]),
        (HEAD + '[param.x]\ntype = "integer"\nhelp = ""\ndefault = 0\nminimum = 1\nmaximum = 0', ["16: param.x.maximum: expected at least minimum 1, got 0"]),
        (HEAD + '[param.x]\ntype = "integer"\nhelp = ""\ndefault = 0\nmin_bytes = 1', ["15: param.x.min_bytes: unknown key; expected one of type, help, unit, required, local, default, minimum, maximum, names"]),
        (HEAD + '[param.x]\ntype = "integer"\nhelp = ""\ndefault = "a"\nmaximum = 1\nnames = { a = 1, b = 2 }', ["16: param.x.names.b: expected an integer <= 1, got 2"]),
        (HEAD + '[param.x]\ntype = "bytes"\nhelp = ""\nrequired = true\nmin_bytes = 2\nmax_bytes = 1', ["16: param.x.max_bytes: expected at least min_bytes 2, got 1"]),
        (HEAD + '[param.x]\ntype = "bytes"\nhelp = ""\nrequired = true\nlocal = true\npeer = "y"', ["16: param.x.peer: y: expected another parameter of type bytes, both with local = true"]),
        (HEAD + '[param.x]\ntype = "bytes"\nhelp = ""\nrequired = true\npeer = "x"', ["15: param.x.peer: x: expected another parameter of type bytes, both with local = true"]),
        (HEAD + '[param.x]\ntype = "choice"\nhelp = ""\nrequired = true', ["11: param.x.choices: missing; expected list of text"]),
        (HEAD + '[param.x]\ntype = "choice"\nhelp = ""\nrequired = true\nchoices = []', ["15: param.x.choices: expected at least one value"]),
        (HEAD + '[param.x]\ntype = "choice"\nhelp = ""\nrequired = true\nchoices = ["a"]\nneeds = { b = "c" }', ["16: param.x.needs.b: not among the choices a"]),
        (HEAD + '[param.x]\ntype = "range"\nhelp = ""\nrequired = true\nminimum = -1', ["15: param.x.minimum: expected integer 0..9223372036854775807, got -1"]),
        (HEAD + '[param.module]\ntype = "text"\nhelp = ""\nrequired = true', ["11: param.module: module is a key of every chain entry; expected another name"]),
        (HEAD + '[param.X-y]\ntype = "text"\nhelp = ""\nrequired = true', [f"11: param.X-y: {NAME}"]),
        (HEAD + "[param]\nx = 1", ["12: param.x: expected a table, got 1"]),
        (HEAD + "[counter.X]\nhelp = ''", [f"11: counter.X: {NAME}"]),
        (HEAD + "[counter.x]\nhlp = ''", ["11: counter.x.help: missing; expected text", '12: counter.x.hlp: unknown key, did you mean "help"?']),
        (HEAD + "[counter.x]\nhelp = ''\nnotice = 1", ["13: counter.x.notice: expected true or false, got 1"]),
        (HEAD + "[counter]\nx = 'y'", ['12: counter.x: expected a table, got "y"']),
        (ratio(of='["lots"]'), ['16: ratio.share.of[0]: no counter "lots", did you mean "lost"?']),
        (ratio(to='["lost", "zzz"]'), ['17: ratio.share.to[1]: no counter "zzz"; it has lost, found']),
        (ratio(of="[]", to="[]"), ["16: ratio.share.of: expected at least one counter", "17: ratio.share.to: expected at least one counter"]),
        (ratio(of='"lost"'), ['16: ratio.share.of: expected list of text, got "lost"']),
        (ratio(of="[1]"), ["16: ratio.share.of: expected list of text, got a list"]),
        (ratio(name="lost"), ["15: ratio.lost: lost is a counter; expected another name"]),
        (ratio(name="X-y"), [f"15: ratio.X-y: {NAME}"]),
        (ratio(rest="hlp = 1"), ['19: ratio.share.hlp: unknown key, did you mean "help"?']),
        (HEAD + "[ratio.x]", [f"11: ratio.x.{key}: missing; expected {what}" for key, what in (("help", "text"), ("of", "list of text"), ("to", "list of text"))]),
        (HEAD + '[ratio.x]\nof = ["a"]\nto = ["a"]\nhelp = ""', ['12: ratio.x.of[0]: no counter "a"; it has none', '13: ratio.x.to[0]: no counter "a"; it has none']),
        (HEAD + "[ratio]\nx = 1", ["12: ratio.x: expected a table, got 1"]),
        ("ratio = 1\n" + HEAD, ["1: ratio: expected tables [ratio.NAME], got 1"]),
        (HEAD + "[ratios.x]", ['11: ratios: unknown key, did you mean "ratio"?']),
        ("x =", ["1: not valid TOML: invalid value"]),
    ],
)  # fmt: skip
def test_wrong_keys(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert problems(tmp_path, text) == expected


def test_a_folder_needs_a_name_that_python_can_import(tmp_path: Path) -> None:
    text = changed("name", 'name = "my-tag"')
    expected = "expected lower-case letters, digits and _, a letter first"
    assert problems(tmp_path, text, "my-tag") == [f'2: module.name: {expected}, got "my-tag"']


def test_an_empty_file_lacks_everything(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "")
    assert len(caught.value.problems) == 9
    assert caught.value.problems[0] == f"{tmp_path}/tag/module.toml: module.abi: missing; expected integer"


def test_values_stand_in_the_manifests_order_with_defaults(tmp_path: Path) -> None:
    manifest, found = read(tmp_path, WHOLE), Problems()
    values = manifest.read_values({"count": 5, "id": "hex:ff"}, Place(Path("p")), found)
    assert list(values.items()) == [("id", b"\xff"), ("mode", "hash"), ("count", 5)]
    assert not found


def test_wrong_values(tmp_path: Path) -> None:
    manifest, found = read(tmp_path, WHOLE), Problems()
    manifest.read_values({"count": 10, "mod": "hash"}, Place(Path("p"), path=("chain", 0)), found)
    assert found.sorted_lines() == [
        "p: chain[0].count: expected integer 1..9, got 10",
        'p: chain[0].id: missing; expected text or "hex:00 ff" of 1..32 bytes',
        'p: chain[0].mod: module tag has no such parameter, did you mean "mode"?',
    ]
