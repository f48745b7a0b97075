"""The plan that a daemon starts with: the files', with the numbers that the daemon before it has given."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from layer45.config import load_settings
from layer45.handover import Predecessor
from layer45.inheritance import Inheritance, inheritance_path, read_inheritance
from layer45.life_cycle import LifeCycle, State
from layer45.loader import Plan, with_states
from layer45.start_checks import taken_numbers

Load = Callable[[Path, Plan | Inheritance | None], Plan]


def first_plan(
    directory: Path, load: Load, life_cycle: LifeCycle, predecessor: Predecessor | None, log: Any
) -> tuple[Plan, list[str]]:
    """The plan, and what is to be told when it is in effect. The life cycle then has every policy's standing.

    States by command outlive a handover, and nothing else. Raises Layer45Error.
    """
    settings = load_settings(directory)
    if predecessor:
        left = msgspec.structs.replace(predecessor.inheritance(settings), taken=taken_numbers())
        life_cycle.restore(left.standings)
        plan = load(directory, left)
        plan = _commanded(plan, life_cycle.with_commands(plan.states))
        life_cycle.follow_heritage(plan.states)
        return plan, list(plan.warnings)
    left, problem = read_inheritance(inheritance_path(settings.control_socket), settings.mark_mask)
    if problem:
        log.warning(problem)
    life_cycle.restore(left.standings)
    plan = load(directory, left)
    return plan, [*plan.warnings, *life_cycle.follow_files(plan.states)]


def _commanded(plan: Plan, states: Mapping[str, State]) -> Plan:
    if states == plan.states:
        return plan
    changed = with_states(plan, states)
    return replace(changed, warnings=tuple(dict.fromkeys((*plan.warnings, *changed.warnings))))
