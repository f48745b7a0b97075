# ruff: noqa: E501 (tables stand whole)
"""Whatever stands in the files: a plan, or problems of one line each that name a file; never another exception."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.check import check
from layer45.errors import ConfigError

ODD = st.sampled_from(
    [
        0,
        1,
        -1,
        True,
        1.5,
        "",
        "x",
        "udp",
        "tcp",
        "5-9",
        "9-5",
        "::/0",
        "10.0.0.1/8",
        "hex:0",
        [],
        {},
        [[]],
        1 << 64,
    ]
)
VALUES = ODD | st.lists(ODD, max_size=3) | st.text(max_size=5) | st.integers()


def tables(*keys: str, inner: Any = VALUES) -> Any:
    return st.dictionaries(st.sampled_from(keys) | st.text("abm-. ", max_size=4), inner, max_size=5)


MATCH = tables(
    "protocol", "local", "remote", "local_port", "remote_port", "user", "group", "cgroup", "program"
)
ENTRY = tables("id", "direction", "n").map(lambda table: {**table, "module": "one"})
POLICY = st.fixed_dictionaries({}, optional={
    "match": MATCH | st.builds(lambda table, but: {**table, "unless": but}, MATCH, MATCH) | VALUES,
    "chain": st.lists(ENTRY | tables("module"), max_size=3) | VALUES,
    "include": st.sampled_from(["a", "b", ["a", "b"], ["c"]]) | VALUES,
    "state": st.sampled_from(["active", "standby", "deprecated"]) | VALUES,
    "priority": st.integers(-3, 3), "mtu": VALUES, "on_failure": VALUES,
})  # fmt: skip
SETTINGS = tables(
    "control_socket",
    "first_queue",
    "workers",
    "mark_mask",
    "cgroup_root",
    "backend",
    "module_dirs",
    "seed",
    "load",
)
MODULE = tables(
    "kind",
    "transports",
    "directions",
    "reads",
    "growth_bytes",
    "emits",
    "emits_bytes",
    "runs_after",
    "provides",
    "hides",
    "abi",
    "gso",
    "content_hash",
)
PARAM = tables(
    "type", "default", "minimum", "maximum", "min_bytes", "choices", "needs", "required", "help", "unit"
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(each):08x}" for each in text if not 0xD800 <= ord(each) < 0xE000) + '"'


def lines(table: dict[str, Any]) -> str:
    return "".join(f"{quoted(key)} = {toml(value)}\n" for key, value in table.items())


FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(configuration: Any) -> list[str]:
    """The problems; empty if there is a plan. check must see the same."""
    report = check(configuration.directory)
    try:
        plan = configuration.load()
    except ConfigError as error:
        assert error.problems == sorted(set(error.problems), key=error.problems.index)
        assert all(line.startswith(str(configuration.directory)) for line in error.problems)
        assert all(len(line.splitlines()) == 1 for line in error.problems)
        assert set(error.problems) <= set(report["problems"])
        return error.problems
    numbers = [each.class_id for each in plan.chains]
    assert len(set(numbers)) == len(numbers)
    assert len(report["policies"]) == len(plan.policies)
    return []


@FEW
@given(st.dictionaries(st.sampled_from("abc"), POLICY, min_size=1, max_size=3))
def test_any_policies(new_configuration: Callable[[], Any], policies: dict[str, Any]) -> None:
    configuration = new_configuration()
    configuration.module("one", params={"id": {"type": "bytes", "help": "", "default": ""}})
    configuration.policies("".join(f"[policy.{name}]\n{lines(table)}" for name, table in policies.items()))
    outcome(configuration)


@FEW
@given(SETTINGS)
def test_any_settings(new_configuration: Callable[[], Any], table: dict[str, Any]) -> None:
    configuration = new_configuration()
    (configuration.directory / "layer45.toml").write_text(lines(table))
    configuration.policies("[policy.a]")
    outcome(configuration)


@FEW
@given(MODULE, PARAM | VALUES)
def test_any_module(new_configuration: Callable[[], Any], module: dict[str, Any], param: Any) -> None:
    configuration = new_configuration()
    folder = configuration.module("one", **dict.fromkeys(module))
    file = folder / "module.toml"
    file.write_text(f"{file.read_text()}{lines(module)}[param]\nn = {toml(param)}\n")
    configuration.policies('[policy.a]\nchain = { module = "one" }')
    outcome(configuration)


HASHES = st.sampled_from(["", f"sha256:{'0' * 64}", "sha256:0"])


@FEW
@given(
    MATCH | VALUES,
    st.lists(st.sampled_from(["one", "two", "tag", ""]), max_size=3),
    HASHES,
    st.binary(max_size=9),
)
def test_any_module_that_needs_no_policy(
    new_configuration: Callable[[], Any], match: Any, load: list[str], content_hash: str, signature: bytes
) -> None:
    configuration = new_configuration()
    configuration.settings(f"load = {toml(load)}\n")
    configuration.policies("[policy.a]")
    for name in ("one", "two"):
        folder = configuration.module(name, content_hash=content_hash or None)
        file = folder / "module.toml"
        file.write_text(f"match = {toml(match)}\n{file.read_text()}")
    (folder / "module.sig").write_bytes(signature)
    outcome(configuration)


@FEW
@given(st.text(max_size=30) | st.binary(max_size=30).map(lambda content: content.decode("latin-1")))
def test_any_text(new_configuration: Callable[[], Any], text: str) -> None:
    configuration = new_configuration()
    file = configuration.directory / "policies" / "a.toml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome(configuration)
