"""Commands that change a policy's state: what is asked of engine and rules, and what a reload forgets.

Engine and rules are those of test_daemon.py; the configuration is real.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layer45.daemon import Daemon
from layer45.errors import ConfigError, Layer45Error
from layer45.life_cycle import STATES, Command, LifeCycle
from layer45.loader import Plan, with_states

from .conftest import Configuration
from .test_daemon import BULK, SPARE, VOICE, Stage, cgroups, make, stage, started

__all__ = ["make", "stage", "started"]

UDP = 'match = { protocol = "udp" }\n'


@pytest.fixture
def three(started: Daemon, stage: Stage, configuration: Configuration) -> Daemon:
    """A daemon with an open policy, a closed one, and one on standby."""
    configuration.policies(VOICE + BULK + SPARE)
    started.reload()
    stage.taken()
    return started


def policy(daemon: Daemon, name: str) -> dict[str, Any]:
    return dict(next(each for each in daemon.status()["policies"] if each["name"] == name))


def diversions(plan: Plan, name: str) -> set[str]:
    return {each.flows for each in plan.rules.diversions if each.policy == name}


@pytest.mark.parametrize(
    ("name", "command", "running"),
    [
        ("voice", "deactivate", "bulk"),
        ("voice", "deprecate", "bulk+voice"),
        ("voice", "revoke", "bulk"),
        ("bulk", "revoke", "bulk+voice"),
        ("spare", "activate", "bulk+spare+voice"),
    ],
)
def test_a_change_takes_the_way_of_a_reload(
    three: Daemon, stage: Stage, tmp_path: Path, name: str, command: Command, running: str
) -> None:
    """Chains, then rules, then old queues go. A closed policy that is revoked stays to drop what comes."""
    assert three.change_state(name, command) == {
        "policy": name,
        "state": STATES[command],
        "generation": 3,
        "changed": True,
    }
    assert stage.taken() == [
        f"build {running}",
        "prepare",
        f"apply {running}",
        f"install {running}",
        "retire",
        "tag",
    ]
    assert cgroups(tmp_path) == []
    assert policy(three, name)["state"] == STATES[command]
    assert policy(three, name)["state_source"] == "command"
    assert three.status()["generation"] == 3


def test_what_each_state_diverts(three: Daemon) -> None:
    found = []
    for command in ("deprecate", "revoke", "deactivate", "activate"):
        for name in ("voice", "bulk"):
            three.change_state(name, command)  # type: ignore[arg-type]  # each is one
        found.append((diversions(three.plan, "voice"), diversions(three.plan, "bulk")))
    assert found == [({"kept"}, {"kept"}), (set(), {"ended"}), (set(), set()), ({"any"}, {"any"})]


def test_a_policy_that_keeps_its_flows_is_asked_before_all_others(
    started: Daemon, configuration: Configuration
) -> None:
    configuration.policies(
        f"[policy.new]\npriority = 9\n{UDP}[policy.old]\n{UDP}[policy.late]\npriority = -1\n{UDP}"
    )
    started.reload()
    started.change_state("old", "deprecate")
    order = [(each.policy, each.flows) for each in started.plan.rules.diversions]
    assert order == [("old", "kept"), ("new", "any"), ("late", "any")]


def test_class_and_queue_stay_through_all_states(three: Daemon) -> None:
    before = {chain.policy.name: (chain.class_id, chain.queue, chain.text) for chain in three.plan.chains}
    for command in ("deprecate", "deactivate", "revoke", "activate"):
        three.change_state("voice", command)  # type: ignore[arg-type]  # each is one
    assert {c.policy.name: (c.class_id, c.queue, c.text) for c in three.plan.chains} == before


def test_files_that_changed_meanwhile_are_not_read(three: Daemon, configuration: Configuration) -> None:
    configuration.policies("nonsense")
    three.change_state("voice", "deactivate")
    three.change_state("spare", "activate")
    assert {chain.policy.name for chain in three.plan.chains} == {"bulk", "spare"}


def test_a_state_that_is_so_already_is_no_change(three: Daemon, stage: Stage) -> None:
    since = policy(three, "voice")["state_since"]
    done = three.change_state("voice", "activate")
    assert done == {"policy": "voice", "state": "active", "generation": 2, "changed": False}
    assert stage.taken() == []
    found = policy(three, "voice")
    assert (found["state_since"], found["state_source"]) == (since, "file")


@pytest.mark.parametrize(
    ("name", "expected"), [("vioce", 'did you mean "voice"'), ("zzz", "there is voice, bulk, spare")]
)
def test_an_unknown_policy_is_explained(three: Daemon, stage: Stage, name: str, expected: str) -> None:
    with pytest.raises(Layer45Error, match=f'no policy "{name}".*{expected}'):
        three.change_state(name, "revoke")
    assert stage.taken() == []
    assert three.generation == 2


@pytest.mark.parametrize(
    ("fails", "calls"),
    [
        ("build", ["build bulk"]),
        ("apply", ["build bulk", "prepare", "apply bulk", "prepare", "apply bulk+voice", "retire"]),
        (
            "install",
            ["build bulk", "prepare", "apply bulk", "install bulk", "prepare", "apply bulk+voice", "retire"],
        ),
    ],
)
def test_a_change_that_fails_midway_goes_back(
    three: Daemon, stage: Stage, tmp_path: Path, fails: str, calls: list[str]
) -> None:
    plan, before = three.plan, policy(three, "voice")
    stage.fail[fails] = 1
    with pytest.raises(Layer45Error, match=f"{fails} failed"):
        three.change_state("voice", "revoke")
    assert stage.taken() == calls
    assert three.plan is plan
    assert policy(three, "voice") == before
    assert cgroups(tmp_path) == []


def test_a_policy_that_cannot_run_beside_the_others_stays_on_standby(
    started: Daemon, stage: Stage, configuration: Configuration
) -> None:
    """Two of one priority that select the same: which one would be first?"""
    configuration.policies(VOICE + VOICE.replace("voice", "twin") + 'state = "standby"\n')
    started.reload()
    stage.taken()
    with pytest.raises(ConfigError, match=r"policy\.twin\.priority: 0 is equal to that of policy\.voice"):
        started.change_state("twin", "activate")
    assert stage.taken() == []
    assert policy(started, "twin")["state"] == "standby"
    started.change_state("voice", "deprecate")  # which asks for flows of its own alone
    started.change_state("twin", "activate")
    assert policy(started, "twin")["state"] == "active"


def test_a_part_of_other_chains_that_is_none_itself_stays_on_standby(
    started: Daemon, configuration: Configuration
) -> None:
    """A load takes it for what others include; and those go on with it, whatever state it has."""
    configuration.policies(
        '[policy.base]\nstate = "standby"\nmatch = { protocol = "tcp" }\n'
        'chain = [ { module = "tag", id = "a" } ]\n'
        f'[policy.whole]\n{UDP}include = ["base"]\n'
    )
    started.reload()
    with pytest.raises(ConfigError, match=r"policy\.base\.chain\[0\]\.module: "):
        started.change_state("base", "activate")
    started.change_state("base", "revoke")
    (whole,) = started.plan.chains
    assert [each.module.name for each in whole.instances] == ["tag"]


def test_states_of_a_plan_are_another_plan(configuration: Configuration) -> None:
    configuration.policies(VOICE + SPARE)
    plan = configuration.load()
    other = with_states(plan, {"voice": "standby", "spare": "active"})
    assert [chain.policy.name for chain in other.chains] == ["spare"]
    assert [chain.policy.name for chain in plan.chains] == ["voice"]
    assert with_states(other, plan.states).rules == plan.rules


@pytest.mark.parametrize(
    ("command", "expected"),
    [("deactivate", "is on standby"), ("deprecate", "is deprecated"), ("revoke", "is revoked")],
)
def test_exec_is_for_active_policies(three: Daemon, command: Command, expected: str) -> None:
    three.change_state("voice", command)
    with pytest.raises(Layer45Error, match=f'policy "voice" {expected}; run: layer45 activate voice'):
        three.prepare_exec("voice")
    three.change_state("voice", "activate")
    assert three.prepare_exec("voice")["cgroup"] == "layer45/voice"


# ---- reload


def test_a_reload_forgets_commands_and_says_so(three: Daemon, configuration: Configuration) -> None:
    three.change_state("voice", "revoke")
    three.change_state("bulk", "deprecate")
    three.change_state("spare", "activate")
    configuration.policies(VOICE + BULK + 'state = "deprecated"\n')
    *_, voice, spare = three.reload()["warnings"]
    assert re.fullmatch(
        r'policy "voice" was revoked by command since \d{4}-\d\d-\d\dT[\d:]{8}Z; the files say active', voice
    )
    assert spare.startswith('policy "spare" was active by command since')
    assert spare.endswith("the files do not have it any more")
    states = {each["name"]: (each["state"], each["state_source"]) for each in three.status()["policies"]}
    assert states == {"voice": ("active", "file"), "bulk": ("deprecated", "file")}
    assert three.reload()["warnings"] == []


def test_a_reload_that_fails_forgets_nothing(three: Daemon, configuration: Configuration) -> None:
    three.change_state("voice", "deactivate")
    configuration.policies("nonsense")
    with pytest.raises(ConfigError):
        three.reload()
    found = policy(three, "voice")
    assert (found["state"], found["state_source"]) == ("standby", "command")


def test_since_is_when_the_state_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(float(second) for second in range(100, 200))
    monkeypatch.setattr("layer45.life_cycle.time.time", lambda: next(clock))
    cycle = LifeCycle()
    since: Callable[[str], str] = lambda name: str(cycle.describe(name)["state_since"])[-4:-1]  # noqa: E731
    cycle.follow_files({"a": "active", "b": "standby"})
    cycle.follow_command("a", "revoked")
    assert (since("a"), since("b")) == (":41", ":40")
    cycle.follow_files({"a": "active", "b": "standby", "c": "active"})
    assert (since("a"), since("b"), since("c")) == (":42", ":40", ":42")
    cycle.follow_command("a", "standby")
    assert cycle.follow_files({"a": "standby"}) == []
    assert since("a") == ":43"
