# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""From files to a plan: whose packets are diverted, numbers that stay, and properties of chains."""

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from layer45.errors import ConfigError
from layer45.loader import ChainPlan, Plan, exec_cgroup, load, load_code
from layer45.rules.diversion import QueueGroup, Selector

UDP = 'match = { protocol = "udp" }'
BYTES = {"type": "bytes", "help": "", "default": "", "max_bytes": 2000}


def chain(plan: Plan, name: str) -> ChainPlan:
    return next(each for each in plan.chains if each.policy.name == name)


def diverted(plan: Plan) -> list[tuple[str, Selector, Selector | None]]:
    return [(each.policy, each.select, each.unless) for each in plan.rules.diversions]


def test_a_plan(configuration: Any) -> None:
    configuration.module("tag", params={}, growth_bytes={"front": 1, "back": 2})  # hidden by the shipped one
    configuration.module(
        "one", params={"id": BYTES}, growth_bytes={"back": "12 + len(id)"}, flow_state_bytes=24
    )
    configuration.module("two", reads="headers", flow_state_bytes=8, growth_bytes={"front": 5})
    configuration.policies(
        f'[policy.p]\n{UDP}\nchain = [{{ module = "one", id = "abc" }}, {{ module = "two" }}]'
    )
    plan = configuration.load()
    (found,) = plan.chains
    assert (found.growth_front, found.growth_back, found.flow_state_bytes) == (5, 15, 32)
    assert (found.reads, found.gso, found.protocols, found.class_id) == ("payload", False, ("udp",), 1)
    assert [each.module.name for each in found.instances] == ["one", "two"]
    assert found.instances[0].values == {"id": b"abc"}
    assert plan.queues == (found.queue,)
    assert (found.queue.first, found.queue.workers, found.queue.copy_bytes) == (4500, 1, 65531)
    assert plan.rules.marks.capacity == 511
    assert plan.policies.keys() == {"p"}


def test_an_instance_on_ingress_alone_lets_nothing_grow(configuration: Any) -> None:
    configuration.module("one", growth_bytes={"back": 9})
    entry = '{ module = "one", direction = "ingress" }'
    configuration.policies(f"[policy.p]\n{UDP}\nchain = [{entry}]")
    (found,) = configuration.load().chains
    assert found.growth_back == 0
    assert found.instances[0].directions == {"ingress"}


@pytest.mark.parametrize(
    ("match", "keys", "gso", "copy_bytes"),
    [
        ('{ protocol = "tcp" }', {"reads": "headers", "gso": True}, True, 192),
        ('{ protocol = "tcp" }', {"reads": "payload", "gso": True}, True, 65531),
        ('{ protocol = "tcp" }', {"reads": "headers"}, False, 192),
        ('{ protocol = "udp" }', {"reads": "headers", "gso": True}, False, 192),
        ("{}", {"reads": "headers", "gso": True}, False, 192),
        ('{ protocol = "tcp" }', {"reads": "headers", "gso": True, "emits": ["egress"]}, True, 65531),
    ],
)  # fmt: skip
def test_what_a_queue_must_do(configuration: Any, match: str, keys: Any, gso: bool, copy_bytes: int) -> None:
    configuration.module("one", kind="segment", transports=["udp", "tcp"], **keys)
    configuration.policies(f'[policy.p]\nmatch = {match}\nchain = {{ module = "one" }}')
    (found,) = configuration.load().chains
    assert (found.gso, found.queue.gso, found.queue.copy_bytes) == (gso, gso, copy_bytes)


def test_an_empty_chain_reads_headers(configuration: Any) -> None:
    configuration.policies('[policy.p]\nmatch = { protocol = "tcp" }')
    (found,) = configuration.load().chains
    assert (found.reads, found.gso, found.queue.copy_bytes) == ("headers", True, 192)


LOOKS = {"kind": "segment", "transports": ["udp", "tcp"], "looks_only": True, "reads": "headers", "gso": True}
COPIED = ("copies", True, 192)


@pytest.mark.parametrize(
    ("keys", "rest", "path", "gso", "copy_bytes"),
    [
        ({}, "match = {}", *COPIED),
        ({}, 'match = { protocol = "udp" }', *COPIED),
        ({"reads": "payload"}, "match = {}", "copies", True, 65531),
        ({"growth_bytes": {"front": 0, "back": 0}}, "match = {}", *COPIED),
        ({}, 'match = {}\npath = "queue"', "queue", False, 192),
        ({}, 'match = {}\non_failure = "closed"', "queue", False, 192),
        ({"gso": False}, "match = {}", "queue", False, 192),
        ({"looks_only": False}, "match = {}", "queue", False, 192),
        ({}, 'match = {}\nchain = { module = "other" }', "queue", False, 65531),
        ({}, "match = {}\nchain = []", "kernel", False, 192),
        ({}, 'match = {}\nstate = "deprecated"', *COPIED),
    ],
)  # fmt: skip
def test_which_chains_look_at_copies(
    configuration: Any, keys: Any, rest: str, path: str, gso: bool, copy_bytes: int
) -> None:
    configuration.module("looks", **LOOKS | keys)
    configuration.module("other", kind="segment", transports=["udp", "tcp"])
    chained = rest if "chain" in rest else f'{rest}\nchain = [{{ module = "looks" }}, {{ module = "looks" }}]'
    configuration.policies(f"[policy.p]\n{chained}")
    plan = configuration.load()
    (found,) = plan.chains
    assert (found.path, found.gso, found.queue.gso, found.queue.copy_bytes) == (path, gso, gso, copy_bytes)
    assert found.queue.copies == plan.rules.diversions[0].queues.copies == (path == "copies")


def test_groups_and_queues_share_one_numbering(configuration: Any) -> None:
    configuration.module("looks", **LOOKS)
    looking = 'match = {}\nchain = { module = "looks" }'
    configuration.policies(
        f'[policy.a]\npriority = 2\n{looking}\n[policy.b]\n{looking}\npath = "queue"\n[policy.c]\npriority = 1\n{looking}'
    )
    plan = configuration.load()
    numbers = {each.policy.name: (each.queue.first, each.queue.kind_name) for each in plan.chains}
    assert numbers["a"] == numbers["c"]
    assert sorted({numbers["a"], numbers["b"]}) == [(4500, "queue"), (4501, "group")]


def test_one_queue_group_for_each_kind(configuration: Any) -> None:
    configuration.settings("workers = 2\nfirst_queue = 10")
    configuration.module("deep")
    deep = f'{UDP}\nchain = {{ module = "deep" }}'
    configuration.policies(
        f"[policy.a]\npriority = 4\n{deep}\n[policy.b]\npriority = 3\n{deep}\n"
        f'[policy.c]\npriority = 2\non_failure = "closed"\n{deep}\n[policy.d]\npriority = 1\nmatch = {{}}'
    )
    plan = configuration.load()
    groups = {name: chain(plan, name).queue for name in "abcd"}
    assert groups["a"] == groups["b"]
    assert [(each.first, each.copy_bytes, each.on_failure) for each in plan.queues] == [
        (10, 192, "open"), (12, 65531, "closed"), (14, 65531, "open"),
    ]  # fmt: skip
    assert {each.policy: each.queues for each in plan.rules.diversions}["c"] == QueueGroup(
        12, 2, bypass=False
    )


def test_includes_stand_in_front_each_once(configuration: Any) -> None:
    for name in "xyz":
        configuration.module(name)
    configuration.policies(
        '[policy.base]\nstate = "standby"\nchain = { module = "x" }\n'
        '[policy.more]\nstate = "standby"\ninclude = "base"\nchain = { module = "y" }\n'
        f'[policy.p]\n{UDP}\ninclude = ["more", "base"]\nchain = {{ module = "z" }}'
    )
    (found,) = configuration.load().chains
    assert [each.module.name for each in found.instances] == ["x", "y", "z"]


# ---- who is diverted


def test_match_and_exec(configuration: Any) -> None:
    configuration.policies(
        '[policy.high]\npriority = 2\nmatch = { protocol = "udp", user = "root", remote = "10.0.0.0/8" }\n'
        '[policy.low]\npriority = 1\nmatch = { group = 0, unless = { remote = "::1" } }'
    )
    net, one = ip_network("10.0.0.0/8"), Selector(remote=(ip_network("::1"),))
    assert diverted(configuration.load()) == [
        ("high", Selector(protocol=("udp",), remote=(net,), cgroup=("layer45/high",)), None),
        ("low", Selector(cgroup=("layer45/low",)), one),
        ("high", Selector(protocol=("udp",), user=(0,), remote=(net,)), None),
        ("low", Selector(group=(0,)), one),
    ]


def test_an_unless_with_an_owner_does_not_concern_exec(configuration: Any) -> None:
    configuration.policies('[policy.p]\nmatch = { unless = { user = "root", remote = "::1" } }')
    by_exec, by_match = configuration.load().rules.diversions
    assert by_exec.unless is None
    assert by_match.unless == Selector(user=(0,), remote=(ip_network("::1"),))


def test_without_match_only_exec_and_only_what_the_chain_carries(configuration: Any) -> None:
    configuration.settings('cgroup_root = "a/b"')
    configuration.module("one")
    configuration.policies('[policy.p]\nchain = { module = "one" }\n[policy.q]')
    plan = configuration.load()
    assert diverted(plan) == [
        ("p", Selector(protocol=("udp",), cgroup=("a/b/p",)), None),
        ("q", Selector(cgroup=("a/b/q",)), None),
    ]
    assert chain(plan, "p").protocols == ("udp",)
    assert exec_cgroup(plan.settings, "p") == "a/b/p"


def test_standby_policies_are_checked_and_not_run(configuration: Any) -> None:
    configuration.policies('[policy.p]\nstate = "standby"\nmatch = {}')
    plan = configuration.load()
    assert (plan.chains, plan.queues, plan.rules.diversions) == ((), (), ())
    assert plan.policies["p"].state == "standby"
    configuration.policies('[policy.p]\nstate = "standby"\nmatch = {}\nchain = { module = "none_such" }')
    assert len(configuration.problems()) == 1


def test_daemons_with_other_sockets_have_other_owners(configuration: Any) -> None:
    owners = {configuration.load().rules.owner}
    for name in ("/run/a.sock", "/run/b.sock"):
        configuration.settings(f'control_socket = "{name}"')
        owners.add(configuration.load().rules.owner)
    assert len(owners) == 3
    assert all(len(owner) <= 10 and owner.replace("_", "").isalnum() for owner in owners)


# ---- reload


def test_numbers_stay_over_reloads(configuration: Any) -> None:
    configuration.module("deep")
    first = "[policy.b]\n[policy.c]"
    configuration.policies(first)
    before = configuration.load()
    configuration.policies(f'[policy.a]\nchain = {{ module = "deep" }}\n{first}')
    after = configuration.load(before)
    assert {each.policy.name: each.class_id for each in after.chains} == {"a": 3, "b": 1, "c": 2}
    assert chain(after, "b").queue == chain(before, "b").queue
    assert chain(after, "a").queue.first == 4501
    configuration.policies("[policy.c]")
    alone = configuration.load(after)
    configuration.policies(f"{first}\n[policy.d]")
    last = configuration.load(alone)
    assert {each.policy.name: each.class_id for each in last.chains} == {"b": 1, "c": 2, "d": 4}


def test_a_reload_of_the_same_files_is_the_same(configuration: Any) -> None:
    configuration.module("deep")
    configuration.policies(f'[policy.p]\n{UDP}\nchain = {{ module = "deep" }}')
    before = configuration.load()
    after = configuration.load(before)
    assert (before.rules, before.queues) == (after.rules, after.queues)
    assert [each.text for each in before.chains] == [each.text for each in after.chains]


@pytest.mark.parametrize(
    "change",
    ['on_failure = "closed"', 'mtu = "signal"', 'chain = [{ module = "one", id = "x" }]', "chain = []",
     'chain = [{ module = "one", direction = "egress" }]', 'chain = [{ module = "one" }, { module = "one" }]'],
)  # fmt: skip
def test_a_chains_text_changes_with_what_it_does(configuration: Any, change: str) -> None:
    configuration.module("one", params={"id": BYTES})
    configuration.policies(f'[policy.p]\n{UDP}\nchain = [{{ module = "one" }}]')
    before = configuration.load().chains[0].text
    kept = "" if change.startswith("chain") else 'chain = [{ module = "one" }]\n'
    configuration.policies(f"[policy.p]\n{UDP}\n{kept}{change}")
    assert configuration.load().chains[0].text != before


def test_a_chains_text_ignores_what_does_not_change_it(configuration: Any) -> None:
    configuration.module("one", params={"id": BYTES})
    configuration.policies(f'[policy.p]\n{UDP}\nchain = [{{ module = "one", id = "ab" }}]')
    before = configuration.load().chains[0].text
    configuration.policies(
        f'# x\n[policy.p]\npriority = 9\nsummary = "y"\nchain = [{{ id = "hex:6162", module = "one" }}]\n{UDP}'
    )
    assert configuration.load().chains[0].text == before


def test_a_chains_text_changes_with_python_code(configuration: Any) -> None:
    configuration.policies('[policy.p]\nchain = { module = "one" }')
    texts = set()
    for code in (
        "class Module:\n def egress(self, packet): pass",
        "class Module:\n def ingress(self, packet): pass",
    ):
        configuration.module("one", code=code)
        texts.add(configuration.load().chains[0].text)
    assert len(texts) == 2


# ---- warnings and code


def test_warnings(configuration: Any) -> None:
    configuration.module("echo", emits=["egress", "ingress"])
    configuration.module("broken", abi=2)
    configuration.policies(
        f'[policy.a]\npriority = 1\nstate = "active"\n{UDP}\nchain = [{{ module = "echo" }}]\n'
        '[policy.b]\nmatch = { protocol = "udp", user = 0 }\n'
    )
    plan = configuration.load()
    folder = configuration.directory
    assert [line.replace(f"{folder}/", "") for line in plan.warnings] == [
        "policies/a.toml:5: policy.a.chain[0].module: module echo sends packets of its own on ingress; the engine can do that in replay only",
        "policies/a.toml:7: policy.b.match: selects no socket that policy.a (policies/a.toml:1), of higher priority, does not; only `layer45 exec` will use this policy",
        "modules/broken/module.toml:4: module.abi: expected 1, which this engine has, got 2",
    ]  # fmt: skip
    assert chain(plan, "a").replay_only == (
        "module echo sends packets of its own on ingress; the engine can do that in replay only",
    )


def test_no_policy_is_a_warning(configuration: Any) -> None:
    assert configuration.load().warnings == (
        f"{configuration.directory}/policies: no policy; nothing will be diverted",
    )


def test_a_missing_directory_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none")
    assert len(caught.value.problems) == 1


def test_code_is_loaded_for_all_chains_or_all_faults_told(configuration: Any) -> None:
    configuration.module("good", code="class Module:\n def egress(self, packet): pass")
    configuration.module("bad", code="x")
    configuration.module("raw")
    configuration.policies(
        '[policy.p]\nchain = [{ module = "good" }, { module = "bad" }, { module = "raw" }, { module = "raw" }]'
    )
    plan = configuration.load()
    with pytest.raises(ConfigError) as caught:
        load_code(plan)
    folder = configuration.directory / "modules"
    assert caught.value.problems == [
        f"{folder}/bad/bad.py:1: cannot be loaded: NameError: name 'x' is not defined",
        f"{folder}/raw: module raw is not built; expected raw.*.so in it",
    ]
    load_code(replace(plan, chains=(replace(plan.chains[0], instances=plan.chains[0].instances[:1]),)))
    assert plan.chains[0].instances[0].module.python_class


def test_what_renumbers_has_queues_of_its_own_and_a_map(configuration: Any) -> None:
    configuration.settings("max_flows = 100\nworkers = 3\n")
    configuration.module("grow", kind="stream", transports=["udp", "tcp"])
    configuration.module("look", kind="segment", transports=["udp", "tcp"])
    matches = {"a": ("grow", "tcp"), "b": ("look", "tcp"), "c": ("grow", "udp")}
    policies = [
        f'[policy.{name}]\npriority = {at}\nmatch = {{ protocol = "{protocol}" }}\nchain = {{ module = "{module}" }}\n'
        for at, (name, (module, protocol)) in enumerate(matches.items())
    ]
    configuration.policies("".join(policies))
    plan = configuration.load()
    assert {each.policy: each.renumbers for each in plan.rules.diversions} == {
        "a": True,
        "b": False,
        "c": False,
    }
    assert plan.rules.renumbering == (chain(plan, "a").class_id,)
    assert chain(plan, "a").queue != chain(plan, "b").queue == chain(plan, "c").queue
    assert chain(plan, "a").queue.on_failure == "open" and not chain(plan, "a").queue.fail_open
    assert plan.rules.connections == 4 * 300


@pytest.mark.parametrize(
    ("match", "empty"),
    [
        ('protocol = "udp", unless = { protocol = "udp" }', True),
        ('remote = "10.1.0.0/16", remote_port = 5, unless = { remote = "10.0.0.0/8" }', True),
        ('program = ["a", "b"], unless = { program = ["b", "a", "c"] }', True),
        ('cgroup = "a/b", unless = { cgroup = "a" }', True),
        ('protocol = "udp", unless = { remote_port = 5 }', False),
        ('remote = "10.0.0.0/8", unless = { remote = "10.1.0.0/16" }', False),
        ('program = "/usr/bin/a", unless = { program = "a" }', False),
    ],
)
def test_an_unless_that_excludes_everything(configuration: Any, match: str, empty: bool) -> None:
    configuration.policies(f"[policy.p]\nmatch = {{ {match} }}\nchain = []\n")
    said = (
        "policies/a.toml:2: policy.p.match.unless: excludes all that the match selects; only `layer45 exec` "
    )
    warnings = [each.replace(f"{configuration.directory}/", "") for each in configuration.load().warnings]
    assert any(each.startswith(said) for each in warnings) == empty, warnings
