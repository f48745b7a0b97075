"""The network between two passes of a replay: `--through 'MODULE KEY=VALUE …'` -> ChainPlan.

It is a chain without a policy, for every packet that its modules can have. Values are written as in a policy,
but text needs no quotes unless it has spaces: `impair loss_percent=5 corrupt_checksum=mend`.
"""

import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layer45.composition import compose
from layer45.modulefolder import find_modules
from layer45.numbering import QueuePlan
from layer45.policy import ChainEntry, Policy
from layer45.problems import Place, Problems
from layer45.trust import Trust

if TYPE_CHECKING:
    from layer45.config import Settings
    from layer45.loader import ChainPlan

PLACE = Place(Path("--through"))
FORM = "MODULE KEY=VALUE …, such as: impair loss_percent=5 delay_ms=20"


def read_network(texts: Sequence[str], settings: "Settings", trust: Trust) -> "ChainPlan":
    """The chain that the texts, one an instance, describe. Raises ConfigError with every problem."""
    from layer45.loader import chain_plan

    problems = Problems()
    entries = tuple(entry for text in texts if (entry := _read_entry(text, problems)))
    policy = Policy(name="network", place=PLACE, chain=entries)
    (composed,) = compose({policy.name: policy}, find_modules(settings, trust), problems)
    problems.raise_any()
    properties = composed.properties
    return chain_plan(composed, 1, QueuePlan(0, 1, properties.copy_bytes, properties.gso, policy.on_failure))


def _read_entry(text: str, problems: Problems) -> ChainEntry | None:
    try:
        name, *pairs = shlex.split(text)
    except ValueError:
        problems.add(PLACE, f"expected {FORM}; got {text!r}")
        return None
    parameters: dict[str, object] = {}
    for pair in pairs:
        key, is_pair, value = pair.partition("=")
        if not is_pair:
            problems.add(PLACE, f"{pair}: expected {FORM}")
        elif key in parameters:
            problems.add(PLACE.child(key), "given twice; expected one value")
        else:
            parameters[key] = _read_value(value)
    return ChainEntry(name, frozenset(("egress",)), parameters, PLACE)


def _read_value(text: str) -> object:
    """A TOML value; what is none is text."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text
