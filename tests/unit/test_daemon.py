"""The order of start, reload and stop, and that a failure at any step leaves what was before.

Engine and rules are stand-ins that write down what is asked of them; the configuration is real.
"""

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from layer45 import bound_queues, start_checks
from layer45.cgroups import Cgroups
from layer45.daemon import Daemon
from layer45.daemon_parts import Parts
from layer45.errors import ConfigError, Layer45Error
from layer45.failures import ChainKey, Tally
from layer45.loader import Plan, load
from layer45.lock import DaemonLock, lock_path
from layer45.rules.kernel_chain import NoKernel
from layer45.rules.kernel_chains import Counted

from .conftest import Configuration

VOICE = '[policy.voice]\nsummary = "S"\nmatch = { protocol = "udp", remote_port = [5000] }\n'
BULK = '[policy.bulk]\nmatch = { protocol = "tcp", remote_port = [80] }\non_failure = "closed"\n'
SPARE = '[policy.spare]\nmatch = { protocol = "udp", remote_port = [7] }\nstate = "standby"\n'


class Stage:
    """Where engine and rules write down their calls. fail: the call that fails, and how often it does."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: dict[str, int] = {}
        self.present = False
        self.alive = True
        self.instances: list[dict[str, Any]] = []  # of the policy voice

    def note(self, call: str) -> None:
        self.calls.append(call)
        name = call.split()[0]
        if self.fail.get(name, 0):
            self.fail[name] -= 1
            raise Layer45Error(f"{name} failed")

    def taken(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


def names(plan: Plan) -> str:
    return "+".join(sorted(chain.policy.name for chain in plan.chains))


class StandInEngine:
    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        stage.note("engine")

    def build(self, plan: Plan) -> None:
        self.stage.note(f"build {names(plan)}")

    def apply(self, plan: Plan, known: int = -1) -> None:
        assert known == 9  # as prepared
        self.stage.note(f"apply {names(plan)}")

    def retire(self) -> None:
        self.stage.note("retire")

    def stop(self) -> None:
        self.stage.note("stop")

    def status(self) -> dict[str, Any]:
        return {"queues": [{"number": 4500, "alive": self.stage.alive}]}

    def stats(self) -> dict[str, Any]:
        return {"policies": {"voice": {"packets": 3, "bytes": 300, "instances": self.stage.instances}}}

    def flows(self, limit: int = 1000) -> list[dict[str, Any]]:
        return []

    def lost(self) -> int:
        return 0

    def tallies(self) -> list[Tally]:
        return []

    def disable(self, key: ChainKey, disabled: bool) -> None:
        raise AssertionError(f"{key}: nothing has failed")

    def customized(self, policies: Collection[str] | None = None) -> Collection[bytes]:
        return []

    def dead_queue(self) -> int | None:
        return None if self.stage.alive else 4500


class StandInRules:
    name = "stand-in"
    no_kernel = NoKernel()

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def present(self, owner: str) -> bool:
        return self.stage.present

    def install(self, plan: Any) -> None:
        self.stage.note("install " + "+".join(sorted({d.policy for d in plan.diversions})))
        self.stage.present = True

    def kernel_counted(self) -> Counted:
        return Counted()

    def prepare(self, plan: Any) -> int:
        self.stage.note("prepare")
        return 9

    def divert_nothing(self, plan: Any) -> None:
        self.stage.note("divert_nothing")

    def end(self, keys: Collection[bytes]) -> int:
        return len(keys)

    def remove(self, owner: str) -> None:
        self.stage.note("remove")
        self.stage.present = False

    def release(self, owner: str) -> None:
        self.stage.note("release")

    def adopt(self, owner: str) -> None:
        self.stage.note("adopt")

    def let_go(self) -> None:
        self.stage.note("let_go")

    def tag(self, plan: Any) -> tuple[bool, str]:
        self.stage.calls.append("tag")
        return False, "no BPF here"

    def find_programs(self) -> bool:
        return False

    def missing_programs(self) -> list[str]:
        return []

    find_cgroups, missing_cgroups = find_programs, missing_programs

    def untag(self) -> None:
        self.stage.calls.append("untag")


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(bound_queues, "QUEUES", tmp_path / "bound")
    return Stage()


@pytest.fixture
def make(stage: Stage, configuration: Configuration, tmp_path: Path) -> Callable[[], Daemon]:
    configuration.settings(f'control_socket = "{tmp_path}/run/control.sock"\n')
    configuration.policies(VOICE)
    (tmp_path / "cgroups").mkdir()
    parts = Parts(
        load=load,
        engine=lambda settings: StandInEngine(stage),
        rules=lambda settings: StandInRules(stage),
        cgroups=lambda root: Cgroups(root, tmp_path / "cgroups"),
    )
    return lambda: Daemon(configuration.directory, parts, structlog.get_logger())


@pytest.fixture
def started(make: Callable[[], Daemon], stage: Stage) -> Daemon:
    daemon = make()
    daemon.start()
    stage.taken()
    return daemon


def left(tmp_path: Path) -> set[str]:
    """Files beside the control socket."""
    return {path.name for path in (tmp_path / "run").iterdir()}


def cgroups(tmp_path: Path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path / "cgroups")) for path in (tmp_path / "cgroups").rglob("*"))


def test_queues_before_rules_and_all_of_it_backwards(
    make: Callable[[], Daemon], stage: Stage, tmp_path: Path
) -> None:
    daemon = make()
    daemon.start()
    assert stage.taken() == ["prepare", "engine", "apply voice", "install voice", "tag"]
    assert cgroups(tmp_path) == []
    daemon.stop()
    assert stage.taken() == ["untag", "divert_nothing", "stop", "remove", "stop", "release"]
    assert cgroups(tmp_path) == []
    assert left(tmp_path) <= {"control.sock.inheritance"}


def test_leftover_rules_become_ours_in_one_step_before_queues_open(
    make: Callable[[], Daemon], stage: Stage
) -> None:
    stage.present = True
    make().start()
    assert stage.taken() == ["prepare", "install voice", "engine", "apply voice", "install voice", "tag"]


@pytest.mark.parametrize(
    ("fails", "calls"),
    [
        ("prepare", ["prepare", "release"]),
        ("engine", ["prepare", "engine", "release"]),
        ("apply", ["prepare", "engine", "apply voice", "stop", "release"]),
        (
            "install",
            [
                "prepare",
                "engine",
                "apply voice",
                "install voice",
                "divert_nothing",
                "stop",
                "remove",
                "stop",
                "release",
            ],
        ),
    ],
)
def test_a_start_that_fails_undoes_what_was_done(
    make: Callable[[], Daemon], stage: Stage, tmp_path: Path, fails: str, calls: list[str]
) -> None:
    stage.fail[fails] = 1
    with pytest.raises(Layer45Error, match=f"{fails} failed"):
        make().start()
    assert stage.taken() == calls
    assert cgroups(tmp_path) == []
    assert left(tmp_path) <= {"control.sock.inheritance"}


def test_a_step_of_the_stop_that_fails_keeps_no_other_from_being_done(
    started: Daemon, stage: Stage, tmp_path: Path
) -> None:
    stage.fail["remove"] = 1
    with pytest.raises(Layer45Error, match="remove failed"):
        started.stop()
    assert stage.taken() == ["untag", "divert_nothing", "stop", "remove", "stop", "release"]
    assert cgroups(tmp_path) == []
    assert left(tmp_path) <= {"control.sock.inheritance"}


def test_a_wrong_configuration_starts_nothing(
    make: Callable[[], Daemon], stage: Stage, configuration: Configuration, tmp_path: Path
) -> None:
    configuration.policies("[policy.voice]\nmatsch = {}\n")
    with pytest.raises(ConfigError):
        make().start()
    assert stage.taken() == []
    assert not (tmp_path / "run").exists()


def test_the_second_daemon_is_refused_and_harms_nothing(
    started: Daemon, make: Callable[[], Daemon], stage: Stage, tmp_path: Path
) -> None:
    with pytest.raises(Layer45Error, match=f"already running here, pid {os.getpid()}"):
        make().start()
    assert stage.taken() == []
    assert lock_path(tmp_path / "run/control.sock").exists()
    assert cgroups(tmp_path) == []


def test_without_root_it_says_so(make: Callable[[], Daemon], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Layer45Error, match="needs root"):
        make().start()


def test_a_queue_of_another_program_is_named(
    make: Callable[[], Daemon], stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "bound").write_text(" 4500  31337     0 2 65531     0     0        0  1\n")
    with pytest.raises(Layer45Error, match=r"^queue 4500 is in use by another program"):
        make().start()
    assert stage.taken() == []


# ---- reload


def test_reload_opens_the_new_before_the_rules_and_closes_the_old_after(
    started: Daemon, stage: Stage, configuration: Configuration, tmp_path: Path
) -> None:
    configuration.policies(BULK)
    assert started.reload() == {"generation": 2, "policies": 1, "warnings": list(started.plan.warnings)}
    assert stage.taken() == ["build bulk", "prepare", "apply bulk", "install bulk", "retire", "tag"]
    assert cgroups(tmp_path) == []


def test_reload_keeps_class_numbers(started: Daemon, configuration: Configuration) -> None:
    before = started.plan.chains[0].class_id
    configuration.policies(VOICE + BULK)
    started.reload()
    assert {c.policy.name: c.class_id for c in started.plan.chains}["voice"] == before


def test_a_reload_of_a_wrong_configuration_changes_nothing(
    started: Daemon, stage: Stage, configuration: Configuration, tmp_path: Path
) -> None:
    plan = started.plan
    configuration.policies("[policy.voice]\nmatsch = {}\n")
    with pytest.raises(ConfigError) as caught:
        started.reload()
    assert stage.taken() == []
    assert started.plan is plan
    assert started.generation == 1
    last = started.status()["last_reload"]
    assert (last["ok"], last["problems"]) == (False, caught.value.problems)


@pytest.mark.parametrize(
    ("fails", "calls"),
    [
        ("build", "build bulk"),
        ("apply", "build bulk,prepare,apply bulk,prepare,apply voice,retire"),
        ("install", "build bulk,prepare,apply bulk,install bulk,prepare,apply voice,retire"),
    ],
)
def test_a_reload_that_fails_midway_goes_back(
    started: Daemon, stage: Stage, configuration: Configuration, tmp_path: Path, fails: str, calls: str
) -> None:
    plan = started.plan
    configuration.policies(BULK)
    stage.fail[fails] = 1
    with pytest.raises(Layer45Error, match=f"{fails} failed"):
        started.reload()
    assert ",".join(stage.taken()) == calls
    assert started.plan is plan
    assert cgroups(tmp_path) == []


@pytest.mark.parametrize("line", ["workers = 2", "mark_mask = 0x700", "first_queue = 9", "max_flows = 10"])
def test_what_is_one_per_daemon_needs_a_restart(
    started: Daemon, stage: Stage, configuration: Configuration, tmp_path: Path, line: str
) -> None:
    configuration.settings(f'control_socket = "{tmp_path}/run/control.sock"\n{line}\n')
    key = line.split()[0]
    with pytest.raises(Layer45Error, match=rf"layer45\.toml: {key}: .* restart"):
        started.reload()
    assert stage.taken() == []


# ---- questions


def test_status_has_every_policy(started: Daemon, configuration: Configuration) -> None:
    configuration.policies(VOICE + SPARE)
    started.reload()
    status = started.status()
    voice, spare = status["policies"]
    assert (voice["name"], voice["state"], voice["packets"]) == ("voice", "active", 3)
    assert voice["queues"] == [4500, 4500]
    assert (spare["name"], spare["state"], spare["class"], spare["queues"]) == (
        "spare",
        "standby",
        None,
        None,
    )
    assert status["pid"] == os.getpid()
    assert status["tagger"] == {"on": False, "reason": "no BPF here"}
    assert status["generation"] == 2


def test_a_dead_worker_is_a_fault(started: Daemon, stage: Stage) -> None:
    assert started.fault() == ""
    stage.alive = False
    assert started.fault() == "the worker of queue 4500 has died"


def test_the_lock_is_free_after_the_stop(started: Daemon, tmp_path: Path) -> None:
    started.stop()
    with DaemonLock(tmp_path / "run/control.sock"):
        pass


def test_settings_are_compared_whole(configuration: Configuration) -> None:
    before = configuration.load().settings
    with pytest.raises(Layer45Error, match="seed"):
        start_checks.check_settings(configuration.directory, before, replace(before, seed=5))
    start_checks.check_settings(configuration.directory, before, replace(before, module_dirs=("/x",)))
