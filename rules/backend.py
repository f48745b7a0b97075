"""Which program puts the rules in, and the three things asked of it.

map and programs (known.py) → rules → …queues in use… → no rules → no programs, no map
"""

import os
import shutil
from types import ModuleType

from layer45.rules import iptables, iptables_live, known, nft
from layer45.rules.command import run
from layer45.rules.diversion import RulePlan
from layer45.rules.errors import RulesError

BACKENDS: dict[str, ModuleType] = {"iptables": iptables_live, "nft": nft}
NAMES = ("auto", *BACKENDS)
_PROBE = "table inet layer45_probe {\n\tchain probe {\n\t\tqueue flags bypass to 0\n\t}\n}\n"


def choose(backend: str = "auto") -> str:
    """The backend to use: "nft" where the kernel has nft's own queue, else "iptables". Raises RulesError."""
    if backend in BACKENDS:
        return backend
    if backend != "auto":
        raise RulesError(f"backend: {backend!r} is unknown; expected one of {', '.join(NAMES)}")
    if nft_queue_problem() is None:
        return "nft"
    if shutil.which("iptables-restore") or os.geteuid() != 0:
        return "iptables"
    raise RulesError(f"no rule backend: no iptables-restore in PATH, and {nft_queue_problem()}")


def choose_for(plan: RulePlan, backend: str = "auto") -> str:
    """As choose, but "auto" is a backend that can do what the plan needs, or wants. Raises RulesError."""
    if backend == "auto" and (plan.asks_map or plan.in_kernel) and shutil.which("iptables-restore"):
        return "iptables"
    return choose(backend)


def standing(owner: str) -> str:
    """The backend by which rules of the owner are in this network namespace; empty: there are none."""
    return next((name for name in BACKENDS if _installed(name, owner)), "")


def nft_queue_problem() -> str | None:
    """Why native nft cannot queue here, or None if it can. Changes nothing; needs root to be sure."""
    if os.geteuid() != 0:
        return "nft can be probed by root only"
    try:
        run(["nft", "--check", "-f", "-"], _PROBE)
    except RulesError as error:
        return str(error)
    return None


def install(plan: RulePlan, backend: str = "auto", again: bool = False) -> str:
    """Make the rules of plan.owner in this network namespace equal to the plan; the backend used.

    Installing again replaces atomically. again: this process has installed with this backend before, and so
    does not look for what a run with the other one left. The map that the plan asks must be prepared
    (known.py). Raises RulesError, and then nothing has changed.
    """
    chosen = choose_for(plan, backend)
    BACKENDS[chosen].install(plan)
    for name, other in BACKENDS.items():
        if not again and name != chosen and _installed(name, plan.owner):
            other.remove(plan.owner)
    return chosen


def remove(owner: str) -> None:
    """Take out whatever rules of the owner are in this network namespace, and then the map that they ask.

    None is no error. Customized connections end before the rules: RulesError, when all else is done, if one
    cannot be closed.
    """
    ended = known.end(owner)
    for name, module in BACKENDS.items():
        if _installed(name, owner):
            module.remove(owner)
    ended += known.remove(owner)
    if ended.problem:
        raise RulesError(ended.problem)


def installed(owner: str) -> bool:
    """Whether rules of the owner are in this network namespace."""
    return bool(standing(owner))


def render(plan: RulePlan, backend: str = "auto") -> str:
    """The rules as text, for people to read; needs no root."""
    if choose_for(plan, backend) == "nft":
        return nft.render_text(plan)
    texts = (f"# {tool}-restore --noflush\n{iptables.render_text(plan, family)}"
             for family, tool in iptables_live.TOOLS.items())  # fmt: skip
    return "\n".join(texts)


def _installed(name: str, owner: str) -> bool:
    """A backend that cannot even list (no program, no kernel support, not root) holds no rules of ours."""
    try:
        return bool(BACKENDS[name].installed(owner))
    except RulesError:
        return False
