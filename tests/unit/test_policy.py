# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""policies/*.toml: what is read, and one line for each thing that is wrong."""

from pathlib import Path
from typing import Any

import pytest

from layer45.errors import ConfigError
from layer45.policy import Policy, load_policies
from layer45.problems import Place
from layer45.rules.diversion import Selector


def read(directory: Path, *texts: str) -> dict[str, Policy]:
    (directory / "policies").mkdir(exist_ok=True)
    for name, text in zip("abc", texts, strict=False):
        (directory / "policies" / f"{name}.toml").write_text(text)
    return load_policies(directory)


def problems(directory: Path, *texts: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(directory, *texts)
    return [line.replace(f"{directory}/policies/", "") for line in caught.value.problems]


def test_a_whole_policy(tmp_path: Path) -> None:
    policies = read(
        tmp_path,
        """
[policy.base]
[policy.voice]
summary    = "FEC for the softphone"
priority   = 100
match      = { protocol = "udp", remote_port = "5004-5100" }
include    = "base"
chain      = [ { module = "tag", id = "host-7" }, { module = "fec", direction = "egress" } ]
on_failure = "closed"
mtu        = "signal"
state      = "deprecated"
""",
    )
    assert policies["base"] == Policy("base", Place(Path()))
    voice = policies["voice"]
    assert (voice.summary, voice.priority, voice.include) == ("FEC for the softphone", 100, ("base",))
    assert (voice.on_failure, voice.mtu, voice.state) == ("closed", "signal", "deprecated")
    assert voice.match == Selector(protocol=("udp",), remote_port=((5004, 5100),))
    assert (voice.file, voice.line) == (tmp_path / "policies" / "a.toml", 3)
    tag, fec = voice.chain
    assert (tag.module, tag.parameters, tag.directions) == ("tag", {"id": "host-7"}, {"egress", "ingress"})
    assert (fec.module, fec.parameters, fec.directions) == ("fec", {}, {"egress"})


def test_no_match_differs_from_an_empty_one(tmp_path: Path) -> None:
    policies = read(tmp_path, "[policy.a]\n[policy.b]\nmatch = {}\n[policy.c.match]")
    assert [policies[name].match for name in "abc"] == [None, Selector(), Selector()]


def test_no_policies_at_all(tmp_path: Path) -> None:
    assert load_policies(tmp_path) == {}
    assert read(tmp_path, "") == {}


def test_only_toml_files_count(tmp_path: Path) -> None:
    read(tmp_path, "")
    (tmp_path / "policies" / "old.toml~").write_text("?")
    assert load_policies(tmp_path) == {}


def test_a_single_entry_may_stand_without_a_list(tmp_path: Path) -> None:
    assert len(read(tmp_path, '[policy.a]\nchain = { module = "tag" }')["a"].chain) == 1


ENTRY = "expected a table { module = … }, got "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[polcy.a]", ['1: polcy: unknown key, did you mean "policy"?']),
        ("policy = 1", ["1: policy: expected tables [policy.NAME], got 1"]),
        ("[policy]\na = 1", ["2: policy.a: expected a table, got 1"]),
        ('[policy."a/b"]', ['1: policy."a/b": expected a name of 1..63 letters, digits, _ and -, a letter or digit first']),
        ('[policy."cpu.max"]', ['1: policy."cpu.max": expected a name of 1..63 letters, digits, _ and -, a letter or digit first']),
        ('[policy.".."]', ['1: policy."..": expected a name of 1..63 letters, digits, _ and -, a letter or digit first']),
        ("[policy.a]\n\nsumary = 'x'", ['3: policy.a.sumary: unknown key, did you mean "summary"?']),
        ("[policy.a]\nsummary = 1", ["2: policy.a.summary: expected text, got 1"]),
        ("[policy.a]\npriority = '1'", ['2: policy.a.priority: expected integer -2147483648..2147483647, got "1"']),
        ("[policy.a]\non_failure = 'opn'", ['2: policy.a.on_failure: expected one of "closed", "open", got "opn", did you mean "open"?']),
        ("[policy.a]\napply_now = 1", ["2: policy.a.apply_now: expected true or false, got 1"]),
        ("[policy.a]\nmtu = 1500", ['2: policy.a.mtu: expected one of "fragment", "signal", got 1500']),
        ("[policy.a]\nstate = 'on'", ['2: policy.a.state: expected one of "active", "deprecated", "standby", got "on"']),
        ("[policy.a]\nmatch = 'udp'", ['2: policy.a.match: expected a table such as { protocol = "udp" }, got "udp"']),
        ("[policy.a]\nmatch = { remote = [\n'::/0',\n'x' ] }",
         ['4: policy.a.match.remote[1]: expected an address or network such as 10.0.0.0/8 or fd00::/8, got "x"']),
        ("[policy.a]\ninclude = 1", ["2: policy.a.include: expected text or list of text, got 1"]),
        ("[policy.a]\ninclude = ['base']\n[policy.bse]", ['2: policy.a.include[0]: no policy "base", did you mean "bse"?']),
        ("[policy.a]\nchain = 'tag'", ['2: policy.a.chain: expected a list of { module = … }, got "tag"']),
        ("[policy.a]\nchain = ['tag',\n3]", [f'2: policy.a.chain[0]: {ENTRY}"tag"', f"3: policy.a.chain[1]: {ENTRY}3"]),
        ("[policy.a]\nchain = [{}]", ["2: policy.a.chain[0].module: expected a module's name"]),
        ("[policy.a]\nchain = [{ module = 1 }]", ["2: policy.a.chain[0].module: expected a module's name, got 1"]),
        ("[policy.a]\nchain = [{ module = 'x', direction = 'egres' }]",
         ['2: policy.a.chain[0].direction: expected one of "both", "egress", "ingress", got "egres", did you mean "egress"?']),
        ("[policy.a]\ninclude = ['a']", ["2: policy.a.include: includes go round in a circle: a -> a"]),
        ("[policy.x]\ninclude = 'c'\n[policy.c]\ninclude = ['b']\n[policy.b]\ninclude = ['x', 'd']\n[policy.d]",
         ["6: policy.b.include: includes go round in a circle: b -> x -> c -> b"]),
        ("[policy.a", ["1: not valid TOML: expected ']' at the end of a table declaration"]),
    ],
)  # fmt: skip
def test_wrong_keys(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert problems(tmp_path, text) == [f"a.toml:{line}" for line in expected]


def test_all_files_are_told_of_at_once(tmp_path: Path) -> None:
    assert problems(tmp_path, "[policy.a]\nmtu = 1\nx = 1", "=", "[policy.c]\nmatch = { local_port = 0 }") == [
        'a.toml:2: policy.a.mtu: expected one of "fragment", "signal", got 1',
        "a.toml:3: policy.a.x: unknown key; expected one of summary, priority, match, include, chain, on_failure, mtu, state, apply_now, version, path",
        "b.toml:1: not valid TOML: invalid statement",
        'c.toml:2: policy.c.match.local_port: expected a port 1..65535 or a range such as "5004-5100", got 0',
    ]  # fmt: skip


def test_a_name_is_given_once(tmp_path: Path) -> None:
    first = f"the policy at {tmp_path}/policies/a.toml:2"
    (found,) = problems(tmp_path, "\n[policy.a]", "[policy.b]\n[policy.a]")
    assert found == f"b.toml:2: policy.a: this name is taken by {first}".replace(f"{tmp_path}/policies/", "")


def test_text_from_a_file_stays_on_one_line(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, '[policy.a]\n"x\\ny\\u2028z" = 1')
    assert len(found.splitlines()) == 1


def test_a_directory_in_a_files_place(tmp_path: Path) -> None:
    (tmp_path / "policies" / "x.toml").mkdir(parents=True)
    assert problems(tmp_path) == ["x.toml: cannot be read: Is a directory"]


def test_a_file_in_the_directorys_place(configuration: Any) -> None:
    (configuration.directory / "policies").rmdir()
    (configuration.directory / "policies").write_text("")
    assert configuration.problems() == ["policies: cannot be read: Not a directory"]
