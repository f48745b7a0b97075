# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""`load = [...]`: modules with a match of their own become policies, in order; what cannot be is told of."""

from pathlib import Path
from typing import Any

import pytest

from layer45.check import check
from layer45.config import Settings
from layer45.loader import exec_cgroup
from layer45.start_checks import check_settings

UDP = '[match]\nprotocol = "udp"\n'
VOICE = '[match]\nprotocol = "udp"\nremote_port = ["5004-5100"]\n'
WEB = '[match]\nprotocol = "udp"\nremote_port = [443]\n'


def add(configuration: Any, name: str, match: str = VOICE, **keys: Any) -> None:
    folder: Path = configuration.module(name, **keys)
    with (folder / "module.toml").open("a") as file:
        file.write(match)


def load(configuration: Any, *names: str) -> None:
    configuration.settings(f"load = [{', '.join(repr(each) for each in names)}]\n")


def chains(configuration: Any) -> dict[str, list[str]]:
    plan = configuration.load()
    return {each.policy.name: [one.module.name for one in each.instances] for each in plan.chains}


def test_a_module_has_its_sockets(configuration: Any) -> None:
    add(configuration, "shout")
    load(configuration, "shout")
    plan = configuration.load()
    (chain,) = plan.chains
    assert chain.policy.match is not None
    assert (chain.policy.match.protocol, chain.policy.match.remote_port) == (("udp",), ((5004, 5100),))
    assert (chain.policy.name, chain.policy.state, chain.policy.on_failure) == ("shout", "active", "open")
    assert [each.policy for each in plan.rules.diversions] == ["shout", "shout"]
    assert plan.rules.diversions[0].select.cgroup == (exec_cgroup(Settings(), "shout"),)
    assert plan.warnings == ()


def test_modules_with_one_match_are_one_chain_in_the_order_of_load(configuration: Any) -> None:
    for name in ("one", "two", "three"):
        add(configuration, name)
    add(configuration, "web", WEB)
    load(configuration, "two", "web", "three", "one")
    assert chains(configuration) == {"two": ["two", "three", "one"], "web": ["web"]}
    load(configuration, "one", "two")
    assert chains(configuration) == {"one": ["one", "two"]}


def test_the_order_of_values_makes_no_other_match(configuration: Any) -> None:
    add(configuration, "one", "[match]\nprotocol = 'udp'\nremote_port = [1, 2]\nunless = { user = [1, 2] }\n")
    add(configuration, "two", "[match]\nprotocol = 'udp'\nremote_port = [2, 1]\nunless = { user = [2, 1] }\n")
    load(configuration, "one", "two")
    assert chains(configuration) == {"one": ["one", "two"]}


def test_a_socket_has_every_module_whose_match_it_fits_in_the_order_of_load(configuration: Any) -> None:
    add(configuration, "all", UDP)
    add(configuration, "voice", VOICE)
    add(configuration, "web", WEB)
    add(configuration, "one_call", VOICE.replace("5004-5100", "5004"))
    add(configuration, "rest", UDP + 'unless = { remote_port = ["5004-5100"] }\n')
    load(configuration, "voice", "all", "one_call", "web", "rest")
    assert chains(configuration) == {
        "one_call": ["voice", "all", "one_call"],
        "web": ["all", "web", "rest"],
        "voice": ["voice", "all"],
        "rest": ["all", "rest"],
        "all": ["all"],
    }
    assert configuration.load().warnings == ()


def test_matches_are_equal_by_what_they_select(configuration: Any) -> None:
    add(configuration, "one", UDP + 'remote = ["10.0.0.0/8", "10.1.0.0/16"]\n')
    add(configuration, "two", UDP + 'remote = "10.0.0.0/8"\n')
    load(configuration, "two", "one")
    assert chains(configuration) == {"two": ["two", "one"]}


def test_what_is_written_comes_before_what_is_loaded(configuration: Any) -> None:
    add(configuration, "shout", UDP)
    load(configuration, "shout")
    configuration.policies(
        f"[policy.own]\nmatch = {{ protocol = 'udp', remote_port = 9 }}\npriority = {1 - (1 << 31)}"
    )
    assert list(chains(configuration)) == ["own", "shout"]
    configuration.policies(f"[policy.own]\nmatch = {{ protocol = 'udp' }}\npriority = {-1 << 31}")
    assert configuration.problems()[0].startswith(
        "policies/a.toml:3: policy.own.priority: -2147483648 is equal"
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["shot"], ['load[0]: no module "shot", did you mean "shout"?']),
        (["shout", "shout"], ["load[1]: module shout is named twice; expected each once"]),
        (["bare"], ["load[0]: module bare has no [match] in its module.toml; write a policy for it"]),
        (["tag"], ["load[0]: module tag cannot do without id; write a policy for it"]),
        (["shout", "half", "web"], ["load[1]: a socket could match both module shout and module half; expected matches that are equal, exclude each other or lie inside each other, or a policy with both in its chain"]),
        (["shout", "but"], ["load[1]: a socket could match both module shout and module but; expected matches that are equal, exclude each other or lie inside each other, or a policy with both in its chain"]),
        (["early", "late"], ["load[1].module: module late must stand before early in the chain"]),
        (["any"], ['load[0].module: module any works on udp, but the policy matches udp, tcp; expected match.protocol = "udp"']),
        (["taken"], ["load[0]: its policy would have the name of the one at policies/a.toml:1; rename that, or let it name the module"]),
    ],
)  # fmt: skip
def test_what_cannot_be_loaded(configuration: Any, names: list[str], expected: list[str]) -> None:
    for name in ("shout", "taken"):
        add(configuration, name)
    add(configuration, "web", WEB)
    add(configuration, "bare", "")
    add(configuration, "half", VOICE.replace("5100", "5200").replace("5004", "5050"))
    add(configuration, "but", UDP + "unless = { remote_port = [5010] }\n")
    add(configuration, "any", "[match]\n")
    add(configuration, "early")
    add(configuration, "late", runs_before=["early"])
    configuration.policies("[policy.taken]\n")
    load(configuration, *names)
    assert configuration.problems() == [f"layer45.toml:2: {line}" for line in expected]
    assert [
        line.replace(f"{configuration.directory}/", "") for line in check(configuration.directory)["problems"]
    ] == (configuration.problems())


def test_matches_that_exclude_each_other_by_unless_are_two_policies(configuration: Any) -> None:
    add(configuration, "shout", '[match]\nprotocol = "udp"\nunless = { remote_port = 443 }\n')
    add(configuration, "web", WEB)
    load(configuration, "shout", "web")
    assert chains(configuration) == {"shout": ["shout"], "web": ["web"]}


def test_a_module_that_is_refused_is_told_of_where_it_is_wrong(configuration: Any) -> None:
    add(configuration, "shout", '[match]\nprotocol = "upd"\n')
    load(configuration, "shout")
    assert configuration.problems() == [
        'modules/shout/module.toml:12: match.protocol: expected "udp" or "tcp", got "upd", did you mean "udp"?'
    ]


def test_the_report_says_where_such_a_policy_stands(configuration: Any) -> None:
    add(configuration, "shout")
    load(configuration, "shout")
    (policy,) = check(configuration.directory)["policies"]
    assert (policy["name"], policy["file"], policy["line"]) == (
        "shout",
        f"{configuration.directory}/layer45.toml",
        2,
    )


def test_a_running_daemon_takes_another_list(configuration: Any) -> None:
    check_settings(configuration.directory, Settings(), Settings(load=("shout",)))


def test_wrong_values(configuration: Any) -> None:
    configuration.settings("load = 'shout'")
    assert configuration.problems() == ['layer45.toml:2: load: expected list of text, got "shout"']
