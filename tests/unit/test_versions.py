"""Which change of a policy makes another version of it, the names of its classes, and how it is written."""

import msgspec

from layer45.inheritance import Inheritance, left_by
from layer45.loader import Plan, with_states, without_versions
from layer45.versions import MOST_VERSIONS

from .conftest import Configuration


def policy(version: str = "", chain: str = '{ module = "one" }', rest: str = "") -> str:
    key = f'version = "{version}"\n' if version else ""
    return f"[policy.voice]\nmatch = {{ protocol = 'udp' }}\nchain = [ {chain} ]\n{key}{rest}\n"


def flows(plan: Plan) -> dict[str, tuple[int, str]]:
    """Name → class, and which flows it gets."""
    return {chain.name: (chain.class_id, chain.flows) for chain in plan.chains}


def test_another_version_gets_another_class(configuration: Configuration) -> None:
    configuration.module("one")
    configuration.policies(policy())
    none = configuration.load()
    configuration.policies(policy("2"))
    second = configuration.load(none)
    configuration.policies(policy("3"))
    third = configuration.load(second)
    assert flows(none) == {"voice": (1, "any")}
    assert flows(second) == {"voice": (2, "any"), "voice@one-1.0.0": (1, "kept")}
    assert flows(third) == {"voice": (3, "any"), "voice@one-1.0.0": (1, "kept"), "voice@2": (2, "kept")}
    kept = [each.flows for each in third.rules.diversions]
    assert kept == sorted(kept, key=lambda each: each == "any")  # they come first


def test_one_that_comes_back_has_its_class(configuration: Configuration) -> None:
    configuration.module("one")
    plan = None
    for version in ("1", "2", "1", "2"):
        configuration.policies(policy(version))
        plan = configuration.load(plan)
    assert plan is not None
    assert flows(plan) == {"voice": (2, "any"), "voice@1": (1, "kept")}


def test_a_change_without_a_version_is_none(configuration: Configuration) -> None:
    configuration.module("one")
    configuration.module("two")
    configuration.policies(policy("1"))
    plan = configuration.load()
    for changed in (policy("1", '{ module = "one" }, { module = "two" }'), policy("1", "", 'mtu = "signal"')):
        configuration.policies(changed)
        plan = configuration.load(plan)
        assert flows(plan) == {"voice": (1, "any")}


def test_a_modules_version_counts_where_the_module_was_before(configuration: Configuration) -> None:
    configuration.module("one")
    configuration.policies(policy("1"))
    plan = configuration.load()
    configuration.module("one", version="1.1.0")
    plan = configuration.load(plan)
    assert flows(plan) == {"voice": (2, "any"), "voice@1": (1, "kept")}
    configuration.module("one", version="1.2.0")
    plan = configuration.load(plan)
    assert flows(plan) == {"voice": (3, "any"), "voice@1": (1, "kept"), "voice@1~2": (2, "kept")}


def test_the_version_of_an_included_policy_counts(configuration: Configuration) -> None:
    configuration.module("one")
    base = '[policy.base]\nstate = "standby"\nchain = [ {{ module = "one" }} ]\nversion = "{}"\n'
    configuration.policies(base.format(1) + policy("9", "", 'include = ["base"]'))
    plan = configuration.load()
    configuration.policies(base.format(2) + policy("9", "", 'include = ["base"]'))
    assert flows(configuration.load(plan)) == {"voice": (2, "any"), "voice@1+9": (1, "kept")}


def test_there_are_not_too_many(configuration: Configuration) -> None:
    configuration.module("one")
    plan = None
    for version in range(MOST_VERSIONS + 1):
        assert plan is None or not any("ends" in each for each in plan.warnings)
        configuration.policies(policy(f"{version}"))
        plan = configuration.load(plan)
    assert plan is not None
    assert list(flows(plan)) == ["voice", *(f"voice@{number}" for number in range(1, MOST_VERSIONS))]
    assert 'policy "voice": its version 0 ends, and its flows lose it' in plan.warnings[0]
    assert plan.classes["voice@0"] == 1  # not given to others soon


def test_where_classes_are_few_old_versions_go_first(configuration: Configuration) -> None:
    configuration.module("one")
    configuration.settings("mark_mask = 0x700\n")  # three classes
    plan = None
    for version in range(4):
        configuration.policies(policy(f"{version}"))
        plan = configuration.load(plan)
    assert plan is not None
    assert list(flows(plan)) == ["voice", "voice@1", "voice@2"]
    assert plan.warnings[0].endswith("at the same time are as many as mark_mask numbers, 3, at most")
    configuration.policies(policy("3") + "[policy.b]\n[policy.c]\n")
    plan = configuration.load(plan)
    assert sorted(flows(plan)) == ["b", "c", "voice"]


def test_states_are_those_of_all_versions(configuration: Configuration) -> None:
    configuration.module("one")
    configuration.policies(policy("1", rest='on_failure = "closed"'))
    plan = configuration.load()
    configuration.policies(policy("2", rest='on_failure = "closed"'))
    plan = configuration.load(plan)
    deprecated, revoked = (with_states(plan, {"voice": state}) for state in ("deprecated", "revoked"))
    assert flows(deprecated) == {"voice": (2, "kept"), "voice@1": (1, "kept")}
    assert flows(revoked) == {"voice": (2, "ended"), "voice@1": (1, "ended")}
    assert flows(with_states(plan, {"voice": "standby"})) == {}
    assert flows(without_versions(plan, ["voice@1"])) == {"voice": (2, "any")}


def test_a_wrong_version_is_told(configuration: Configuration) -> None:
    configuration.module("one")
    configuration.policies(policy(rest='version = "a b"'))
    (problem,) = configuration.problems()
    expected = "expected a version of 1..32 letters, digits, and . _ + -, a letter or digit first"
    assert problem == f'policies/a.toml:4: policy.voice.version: {expected}, got "a b"'


def test_what_is_written_down_makes_the_same_plan(configuration: Configuration) -> None:
    """Everything that a chain and its rules depend on; of the policy's other keys the files tell."""
    number = {"type": "integer", "default": 3, "help": "a number"}
    configuration.module("one", params={"number": number})
    match = '{ protocol = "udp", local = ["10.0.0.0/8", "fd00::/8"], remote_port = [5, "7-9"], user = [0], '
    match += 'program = ["a", "/b/c"], cgroup = "x/y", unless = { remote = "10.1.0.0/16", group = [0] } }'
    text = f'[policy.voice]\nmatch = {match}\non_failure = "closed"\nmtu = "signal"\n'
    text += 'chain = [ { module = "one", number = 4, direction = "egress" } ]\n'
    configuration.policies(text + 'version = "1"\n')
    first = configuration.load()
    configuration.policies(text + 'version = "2"\n')
    second = configuration.load(first)
    written = msgspec.json.encode(left_by(second, {}))
    again = configuration.load(msgspec.json.decode(written, type=Inheritance))
    assert again.rules == second.rules
    assert again.classes == second.classes
    assert [chain.text for chain in again.chains] == [chain.text for chain in second.chains]
    assert [chain.queue for chain in again.chains] == [chain.queue for chain in second.chains]
    assert [each.since for each in again.versions] == [each.since for each in second.versions]
