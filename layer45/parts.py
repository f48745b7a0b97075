"""What a real daemon is made of."""

from pathlib import Path

from layer45.daemon_parts import Parts
from layer45.engine import Engine
from layer45.inheritance import Inheritance
from layer45.loader import Plan, load, load_code
from layer45.privileges import keep_least, start_daemon
from layer45.rule_switch import RuleSwitch


def real_parts() -> Parts:
    """The loader, the engine and the rules."""
    return Parts(
        load=_load, engine=Engine, rules=RuleSwitch, keep_least=keep_least, start_daemon=start_daemon
    )


def _load(directory: Path, previous: Plan | Inheritance | None) -> Plan:
    """A plan whose modules' code is loaded too, so that the engine finds nothing wrong with it."""
    plan = load(directory, previous)
    load_code(plan)
    return plan
