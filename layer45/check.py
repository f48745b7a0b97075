"""What `layer45 check` tells: is a configuration right, and what does each policy come to. Needs no root."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from layer45.cgroups import mount_point
from layer45.chain_properties import payload_room
from layer45.config import read_settings
from layer45.errors import ConfigError, Layer45Error
from layer45.loader import ChainPlan, Plan, load
from layer45.modulefolder import Module, ModuleIndex, find_modules
from layer45.policy import Policy
from layer45.problems import Place, Problems
from layer45.trust import read_trust


def check(directory: Path) -> dict[str, Any]:
    """Plain data: ok, problems and warnings (one line each), and what each policy and module is.

    ok is False with any problem, also in a module that no policy uses. policies is empty if there is no plan.
    """
    settings, _ = read_settings(directory, Problems())
    index = find_modules(settings, read_trust(directory, Problems()))
    problems = set(_broken(index))
    report: dict[str, Any] = {"directory": str(directory), "warnings": [], "policies": []}
    report["modules"] = [_module(index.modules[name]) for name in sorted(index.modules)]
    try:
        plan = load(directory)
        report["policies"] = [*map(_chain, plan.chains), *_standby(plan)]
        report["warnings"] = _warnings(plan, problems)
    except ConfigError as error:
        problems.update(error.problems)
    return {"ok": not problems, "problems": sorted(problems, key=_file_and_line), **report}


def _file_and_line(problem: str) -> tuple[str, int, str]:
    file, _, rest = problem.partition(":")
    line = rest.partition(":")[0]
    return file, int(line) if line.isdigit() else 0, rest


def _broken(index: ModuleIndex) -> list[str]:
    return [line for each in index.broken.values() for line in each.sorted_lines()]


def _warnings(plan: Plan, problems: Iterable[str]) -> list[str]:
    found = Problems()
    for policy in plan.policies.values():
        _warn_of_cgroups(policy, found)
    rest = [each for each in plan.warnings if each not in problems]
    return [*rest, *found.sorted_lines(), *_unbuilt(plan)]


def _unbuilt(plan: Plan) -> list[str]:
    used = {each.module.name: each.module for chain in plan.chains for each in chain.instances}
    return [
        f"{module.folder}: module {name} is not built" for name, module in used.items() if not module.code
    ]


def _warn_of_cgroups(policy: Policy, found: Problems) -> None:
    for place, path in _cgroups(policy):
        try:
            if not (mount_point() / path).is_dir():
                found.add(place, f"no cgroup {mount_point() / path} on this host now, so nobody is in it")
        except Layer45Error as error:
            found.add(place, str(error))


def _cgroups(policy: Policy) -> Iterator[tuple[Place, str]]:
    match = policy.place.child("match")
    for select, place in ((policy.match, match), (policy.unless, match.child("unless"))):
        for path in select.cgroup if select else ():
            yield place.child("cgroup"), path


def _chain(chain: ChainPlan) -> dict[str, Any]:
    return {
        **_policy(chain.policy),
        "class": chain.class_id,
        "path": chain.path,
        "queue": {"first": chain.queue.first, "workers": chain.queue.workers},
        "protocols": list(chain.protocols),
        "growth_bytes": {"front": chain.growth_front, "back": chain.growth_back},
        "payload_bytes_in_mtu_1500": payload_room(chain.growth_front + chain.growth_back, chain.protocols),
        "flow_state_bytes": chain.flow_state_bytes,
        "reads": chain.reads,
        "copy_bytes": chain.queue.copy_bytes,
        "gso": chain.gso,
        "modules": [each.module.name for each in chain.instances],
        "replay_only": list(chain.replay_only),
    }


def _standby(plan: Plan) -> list[dict[str, Any]]:
    return [_policy(each) for each in plan.policies.values() if each.state == "standby"]


def _policy(policy: Policy) -> dict[str, Any]:
    keys = ("name", "summary", "version", "state", "priority", "on_failure", "mtu", "apply_now")
    return {**{key: getattr(policy, key) for key in keys}, "file": str(policy.file), "line": policy.line}


def _module(module: Module) -> dict[str, Any]:
    keys = ("name", "version", "kind", "language", "summary")
    described = {key: getattr(module.manifest, key) for key in keys}
    return {
        **described,
        "folder": str(module.folder),
        "shipped": module.shipped,
        "built": module.code is not None,
    }
