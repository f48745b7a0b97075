# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""Chains and plans that cannot work, each refused with its reason."""

from typing import Any

import pytest

UDP = 'match = { protocol = "udp" }'
CHOICE = {
    "type": "choice",
    "help": "",
    "default": "none",
    "choices": ["none", "seq"],
    "needs": {"seq": "sequence"},
}


def policy(*entries: str, match: str = UDP, name: str = "p") -> str:
    listed = ", ".join(each if "{" in each else f'{{ module = "{each}" }}' for each in entries)
    return f"[policy.{name}]\n{match}\nchain = [{listed}]\n"


@pytest.fixture
def modules(configuration: Any) -> Any:
    add = configuration.module
    add("plain", kind="segment", transports=["udp", "tcp"])
    add("udp_only")
    add("tcp_only", transports=["tcp"])
    add("longer", growth_bytes={"back": 4})
    add("datagram", transports=["udp", "tcp"])
    add(
        "large",
        growth_bytes={"front": 700, "back": "n"},
        params={"n": {"type": "integer", "help": "", "default": 500, "minimum": 0, "maximum": 9999}},
    )
    add("stream", kind="stream", transports=["tcp"], stream_growth={"bytes": 4, "every": 100})
    add("segment", kind="segment", transports=["udp", "tcp"])
    add("segment_longer", kind="segment", transports=["tcp"], growth_bytes={"back": 4})
    add("first", runs_before=["second"])
    add("second", runs_before=["third"])
    add("third", runs_after=["first"])
    add("circle", runs_after=["second"], runs_before=["first"])
    add("user", params={"mode": CHOICE})
    add("carrier", provides=["sequence"])
    add("hider", hides=["sequence"])
    add("egress_only", directions=["egress"])
    return configuration  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (policy("plain", "udp_only", match="match = {}"), ['chain[1].module: module udp_only works on udp, but the policy matches udp, tcp; expected match.protocol = "udp"']),
        (policy("tcp_only"), ["chain[0].module: module tcp_only works on tcp, but the policy matches udp; expected another module or another protocol"]),
        (policy("datagram", match='match = { protocol = ["tcp"] }'), ['chain[0].module: module datagram is of kind datagram: it would break TCP\'s sequence numbers; expected match.protocol = "udp", or a module of kind segment or stream']),
        (policy("udp_only", "tcp_only", match="").replace("\n\n", "\n# none\n"), [
            'chain[0].module: module udp_only works on udp, but the policy matches udp, tcp; expected match.protocol = "udp"',
            'chain[1].module: module tcp_only works on tcp, but the policy matches udp, tcp; expected match.protocol = "tcp"']),
        (policy("segment_longer", match='match = { protocol = "tcp" }'), ["chain[0].module: module segment_longer makes payloads longer, which would break TCP's sequence numbers; expected a module of kind stream"]),
        (policy('{ module = "large", n = 501 }'), ["chain: makes packets up to 1201 bytes longer; expected at most 1200"]),
        (policy("large", "longer"), ["chain: makes packets up to 1204 bytes longer; expected at most 1200"]),
        (policy("second", "first"), ["chain[1].module: module first must stand before second in the chain"]),
        (policy("third", "second", "first"), [
            "chain[1].module: module second must stand before third in the chain",
            "chain[2].module: module first must stand before second in the chain",
            "chain[2].module: module first must stand before third in the chain"]),
        (policy("first", "second", "circle"), ["chain[0].module: the modules' runs_after and runs_before contradict: circle -> first -> second -> circle"]),
        (policy('{ module = "user", mode = "seq" }'), ['chain[0].mode: "seq" needs "sequence" from a module behind user in the chain; none there provides it']),
        (policy("carrier", '{ module = "user", mode = "seq" }'), ['chain[1].mode: "seq" needs "sequence" from a module behind user in the chain; none there provides it']),
        (policy('{ module = "user", mode = "seq" }', '{ module = "carrier", direction = "egress" }'), ['chain[0].mode: "seq" needs "sequence" from a module behind user in the chain; none there provides it']),
        (policy('{ module = "user", mode = "seq" }', "hider", "carrier"), ['chain[0].mode: "seq" needs "sequence" from a module behind user in the chain; hider in between hides it']),
        (policy('{ module = "egress_only", direction = "ingress" }'), ["chain[0].direction: module egress_only works on egress only"]),
        (policy("plane"), ['chain[0].module: no module "plane", did you mean "plain"?']),
        (policy('{ module = "plain", x = 1 }'), ["chain[0].x: module plain has no such parameter; it has none"]),
        (policy('{ module = "user", mode = "sq" }', "second", "first"), [
            'chain[0].mode: expected one of "none", "seq", got "sq", did you mean "seq"?',
            "chain[2].module: module first must stand before second in the chain"]),
    ],
)  # fmt: skip
def test_chains_that_cannot_work(modules: Any, text: str, expected: list[str]) -> None:
    modules.policies(text)
    assert modules.problems() == [f"policies/a.toml:3: policy.p.{line}" for line in expected]


@pytest.mark.parametrize(
    "text",
    [
        policy("plain", match="match = {}"), policy("udp_only"), policy("longer"), policy("large"),
        policy("first", "second", "third"), policy("first", "third"), policy("segment", match="match = {}"),
        policy("stream", "segment", match='match = { protocol = "tcp" }'),
        policy('{ module = "user", mode = "seq" }', "plain", "carrier"), policy("user"), policy("longer", match=""),
        policy('{ module = "user", mode = "seq", direction = "ingress" }', '{ module = "carrier", direction = "ingress" }'),
    ],
)  # fmt: skip
def test_chains_that_work(modules: Any, text: str) -> None:
    modules.policies(text)
    assert len(modules.load().chains) == 1


def test_faults_of_included_chains_stand_at_the_include(modules: Any) -> None:
    modules.policies('[policy.base]\nstate = "standby"\nchain = { module = "second" }\n', "b.toml")
    modules.policies(f'[policy.p]\n{UDP}\ninclude = [\n"base"]\nchain = {{ module = "first" }}')
    assert modules.problems() == [
        "policies/a.toml:5: policy.p.chain.module: module first must stand before second in the chain"
    ]
    modules.policies('[policy.p]\nmatch = {}\ninclude = [\n"base"]')
    assert modules.problems() == [
        "policies/a.toml:4: policy.p.include[0]: module second works on udp, but the policy matches udp, tcp; "
        'expected match.protocol = "udp"'
    ]


def test_a_part_of_chains_need_not_stand_alone(modules: Any) -> None:
    modules.policies(
        policy('{ module = "user", mode = "seq" }', name="part") + 'state = "standby"\n', "b.toml"
    )
    modules.policies(f'[policy.p]\n{UDP}\ninclude = "part"\nchain = {{ module = "carrier" }}')
    assert [each.module.name for each in modules.load().chains[0].instances] == ["user", "carrier"]


def test_a_broken_module_is_told_of_where_it_is_broken_once(modules: Any) -> None:
    modules.module("broken", abi=2)
    modules.policies(policy("broken", "broken"))
    assert modules.problems() == [
        "modules/broken/module.toml:4: module.abi: expected 1, which this engine has, got 2"
    ]


# ---- priorities


def two(first: str, second: str) -> str:
    return f"[policy.a]\nmatch = {first}\n[policy.b]\nmatch = {second}\n"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{}", "{}"), ('{ protocol = "udp" }', "{}"), ("{ remote_port = 5 }", "{ local_port = 6 }"),
        ('{ remote_port = ["1-9", 20] }', "{ remote_port = [10, 9] }"), ("{ user = 0 }", "{ group = 0 }"),
        ('{ remote = "10.0.0.0/8" }', '{ remote = "10.1.0.0/16" }'), ('{ cgroup = "a" }', '{ cgroup = "a/b" }'),
        ('{ unless = { remote_port = 5, user = 0 } }', "{ remote_port = 5 }"),
    ],
)  # fmt: skip
def test_equal_priorities_that_could_meet(configuration: Any, first: str, second: str) -> None:
    configuration.policies(two(first, second))
    assert configuration.problems() == [
        "policies/a.toml:3: policy.b.priority: 0 is equal to that of policy.a (policies/a.toml:1), and a socket could "
        "match both; expected different priorities, or matches that exclude each other"
    ]
    configuration.policies(two(first, second) + "priority = 1")
    configuration.load()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{ protocol = "udp" }', '{ protocol = "tcp" }'), ("{ remote_port = 5 }", '{ remote_port = "6-9" }'),
        ("{ user = 0 }", "{ user = 1 }"), ('{ remote = "10.0.0.0/8" }', '{ remote = "fd00::/8" }'),
        ('{ remote = "10.0.0.0/8" }', '{ local = "fd00::/8" }'), ('{ cgroup = "a" }', '{ cgroup = "ab" }'),
        ('{ unless = { remote_port = "1-9" } }', "{ remote_port = 5 }"), ("{}\nstate = 'standby'", "{}"),
    ],
)  # fmt: skip
def test_equal_priorities_that_cannot_meet(configuration: Any, first: str, second: str) -> None:
    configuration.policies(two(first, second))
    configuration.load()


def test_policies_without_match_never_meet(configuration: Any) -> None:
    configuration.policies("[policy.a]\n[policy.b]\n[policy.c]\nmatch = {}")
    configuration.load()


def test_a_wrong_match_is_not_judged_further(modules: Any) -> None:
    modules.policies(
        '[policy.a]\nmatch = { protocol = "upd" }\nchain = { module = "udp_only" }\n[policy.b]\nmatch = {}'
    )
    assert modules.problems() == [
        'policies/a.toml:2: policy.a.match.protocol: expected "udp" or "tcp", got "upd", did you mean "udp"?'
    ]


# ---- numbers


def test_more_policies_than_classes(configuration: Any) -> None:
    configuration.settings("mark_mask = 0x7")
    configuration.policies("".join(f"[policy.p{n}]\n" for n in range(3)))
    assert len(configuration.load().chains) == 3
    configuration.policies("".join(f"[policy.p{n}]\n" for n in range(4)))
    assert configuration.problems() == [
        "layer45.toml:2: mark_mask: has 2 class bits, which number 3 policies; 4 policies need 3 class bits"
    ]


def test_no_queue_numbers_left(configuration: Any) -> None:
    configuration.settings("first_queue = 65534")
    configuration.policies("[policy.a]")
    configuration.load()
    configuration.policies('[policy.a]\n[policy.b]\non_failure = "closed"')
    assert configuration.problems() == [
        "layer45.toml:2: first_queue: the queues would end at 65535; the last there is is 65534"
    ]


def test_everything_wrong_at_once(modules: Any) -> None:
    modules.settings("workers = 0\nmark_mask = 1")
    modules.policies("[policy.x]\nmtu = 0\n" + policy("plane", "first"), "a.toml")
    modules.policies("]", "b.toml")
    modules.policies(policy("second", "first", name="q"), "c.toml")
    found = [line.rsplit(": ", 1)[0] for line in modules.problems()]
    assert [line.split(": ")[0] for line in found] == [
        "layer45.toml:2", "layer45.toml:3", "policies/a.toml:2", "policies/a.toml:5", "policies/b.toml:1",
        "policies/c.toml:1", "policies/c.toml:3",
    ]  # fmt: skip
