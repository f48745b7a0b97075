"""When an old version of a policy is over: when no flow has it any more, in the engine or in conntrack."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from layer45.loader import Plan
from layer45.rules.conntrack import has_mark
from layer45.rules.diversion import MarkLayout

LOOK_S = 1.0
HasMark = Callable[[int, int], bool | None]


class OldVersions:
    """Looks at them from time to time. Conntrack is asked only of those that the engine knows no flow of."""

    def __init__(self, look_s: float = LOOK_S, has: HasMark = has_mark) -> None:
        self._look_s = look_s
        self._has = has
        self._next = 0.0

    def over(self, plan: Plan, stats: Callable[[], Mapping[str, Any]]) -> list[str]:
        """Names of those that are over. stats: of the engine, by name."""
        old = [chain for chain in plan.chains if chain.is_old]
        now = time.monotonic()
        if not old or now < self._next:
            return []
        self._next = now + self._look_s
        seen = stats()
        idle = [chain for chain in old if not seen.get(chain.name, {}).get("flows", 0)]
        marks = plan.rules.marks
        return [chain.name for chain in idle if not self._in_conntrack(marks, chain.class_id)]

    def _in_conntrack(self, marks: MarkLayout, class_id: int) -> bool:
        """Where conntrack cannot be asked, what the engine says must do."""
        return bool(self._has(marks.spread(class_id), marks.class_mask))


def describe(plan: Plan, name: str, stats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A policy's versions that run, the newest first, as `layer45 status --json` has them."""
    chains = {chain.name: chain for chain in plan.chains}
    mine = [each for each in plan.versions if each.policy == name]
    return [
        {
            "name": each.name,
            "version": each.label,
            "newest": not each.is_old,
            "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each.since)),
            "class": chains[each.name].class_id,
            "queues": [chains[each.name].queue.numbers[0], chains[each.name].queue.numbers[-1]],
            "flows": stats.get(each.name, {}).get("flows", 0),
        }
        for each in sorted(mine, key=lambda each: (each.is_old, -each.since))
    ]
