"""The policy that a command names."""

from collections.abc import Collection

from layer45.errors import Layer45Error
from layer45.loader import Plan
from layer45.suggest import did_you_mean


def require_policy(plan: Plan, name: str, choices: Collection[str] | None = None) -> None:
    """Raises Layer45Error that tells of a name like it, or of the choices; None: all policies."""
    policies = plan.policies
    if name not in policies:
        there = ", ".join(policies if choices is None else choices) or "none"
        raise Layer45Error(f'no policy "{name}"{did_you_mean(name, policies) or f"; there is {there}"}')


def require_active(plan: Plan, name: str) -> None:
    """Raises Layer45Error, with the command that mends it."""
    states = plan.states
    require_policy(plan, name, [each for each, state in states.items() if state == "active"])
    if states[name] != "active":
        is_now = "on standby" if states[name] == "standby" else states[name]
        raise Layer45Error(f'policy "{name}" is {is_now}; run: layer45 activate {name}')
