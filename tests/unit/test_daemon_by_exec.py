"""`layer45 exec`: a policy has a cgroup, and rules that ask for it, once a program is to be started with it.

Engine and rules are those of test_daemon.py; the configuration is real.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from layer45.daemon import Daemon
from layer45.errors import Layer45Error

from .conftest import Configuration
from .test_daemon import BULK, SPARE, VOICE, Stage, cgroups, make, stage, started

__all__ = ["make", "stage", "started"]

ALONE = "[policy.alone]\n"


def by_exec(daemon: Daemon) -> list[str]:
    """The policies whose cgroups the rules ask for, in order."""
    return [d.policy for d in daemon.plan.rules.diversions if d.select and d.select.cgroup]


def test_exec_is_told_the_cgroup(started: Daemon, tmp_path: Path) -> None:
    prepared = started.prepare_exec("voice")
    assert prepared == {"cgroup": "layer45/voice", "namespace": Path("/proc/self/ns/net").stat().st_ino}
    assert (tmp_path / "cgroups" / prepared["cgroup"]).is_dir()


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("vioce", 'did you mean "voice"'), ("zzz", "there is voice"), ("spare", "is on standby")],
)
def test_exec_of_what_does_not_run_is_explained(
    started: Daemon, configuration: Configuration, policy: str, expected: str
) -> None:
    configuration.policies(VOICE + SPARE)
    started.reload()
    with pytest.raises(Layer45Error, match=expected):
        started.prepare_exec(policy)


def test_before_the_first_program_no_rule_asks_for_a_cgroup(started: Daemon, tmp_path: Path) -> None:
    assert by_exec(started) == []
    assert cgroups(tmp_path) == []


def test_the_first_program_brings_rules_and_the_second_changes_nothing(
    started: Daemon, stage: Stage, tmp_path: Path
) -> None:
    stage.taken()
    generation = started.generation
    prepared = started.prepare_exec("voice")
    assert prepared["cgroup"] == "layer45/voice"
    assert stage.taken() == ["build voice", "prepare", "apply voice", "install voice", "retire", "tag"]
    assert by_exec(started) == ["voice"]
    assert cgroups(tmp_path) == ["layer45", "layer45/voice"]
    assert started.prepare_exec("voice") == prepared
    assert stage.taken() == []
    assert started.generation == generation  # no policy has changed


def test_a_cgroup_that_somebody_removed_is_made_again(started: Daemon, tmp_path: Path) -> None:
    started.prepare_exec("voice")
    (tmp_path / "cgroups/layer45/voice").rmdir()
    started.prepare_exec("voice")
    assert cgroups(tmp_path) == ["layer45", "layer45/voice"]


def test_rules_for_exec_come_first_and_stay_over_reloads_and_changes(
    started: Daemon, configuration: Configuration, tmp_path: Path
) -> None:
    started.prepare_exec("voice")
    configuration.policies(VOICE + BULK + ALONE)
    started.reload()
    assert [d.policy for d in started.plan.rules.diversions] == ["voice", "bulk", "voice"]
    started.change_state("bulk", "deactivate")
    started.prepare_exec("alone")
    assert by_exec(started) == ["alone", "voice"]
    assert cgroups(tmp_path) == ["layer45", "layer45/alone", "layer45/voice"]
    started.change_state("voice", "deactivate")
    assert by_exec(started) == ["alone"]
    assert cgroups(tmp_path) == ["layer45", "layer45/alone"]
    started.change_state("voice", "activate")
    assert by_exec(started) == ["alone", "voice"]
    started.stop()
    assert cgroups(tmp_path) == []


def test_a_start_that_cannot_be_made_ready_changes_nothing(
    started: Daemon, stage: Stage, tmp_path: Path
) -> None:
    plan = started.plan
    stage.fail["install"] = 1
    with pytest.raises(Layer45Error, match="install failed"):
        started.prepare_exec("voice")
    assert started.plan is plan
    assert cgroups(tmp_path) == ["layer45"]


def test_programs_of_a_killed_daemon_keep_their_policy(
    make: Callable[[], Daemon], configuration: Configuration, tmp_path: Path
) -> None:
    configuration.policies(VOICE + BULK + ALONE)
    for name, populated in (("voice", 1), ("bulk", 0)):
        cgroup = tmp_path / "cgroups/layer45" / name
        cgroup.mkdir(parents=True)
        (cgroup / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")
    daemon = make()
    daemon.start()
    assert by_exec(daemon) == ["voice"]
