"""When an old version of a policy is over: when no flow has it any more, in the engine or in conntrack."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from layer45.life_cycle import iso
from layer45.loader import ChainPlan, Plan
from layer45.rules.conntrack import has_mark

LOOK_S = 5.0  # conntrack goes through all connections for an answer
HasMark = Callable[[int, int], bool | None]


class OldVersions:
    """Looks at them from time to time. Conntrack is asked only of those that the engine knows no flow of."""

    def __init__(self, look_s: float = LOOK_S, has: HasMark = has_mark) -> None:
        self._look_s = look_s
        self._has = has
        self._next = 0.0
        self._idle_since: dict[str, float] = {}

    def over(self, plan: Plan, stats: Callable[[], Mapping[str, Any]]) -> list[str]:
        """Names of those that are over. stats: of the engine, by name."""
        old = [chain for chain in plan.chains if chain.is_old]
        now = time.monotonic()
        if not old or now < self._next:
            return []
        self._next = now + self._look_s
        seen = stats()
        idle = [chain for chain in old if not seen.get(chain.name, {}).get("flows", 0)]
        self._idle_since = {chain.name: self._idle_since.get(chain.name, now) for chain in idle}
        return [chain.name for chain in idle if self._is_over(plan, chain, now)]

    def _is_over(self, plan: Plan, chain: ChainPlan, now: float) -> bool:
        """Where conntrack cannot tell, the engine must have known no flow for as long as it remembers one."""
        marks = plan.rules.marks
        found = self._has(marks.spread(chain.class_id), marks.class_mask)
        longest_s = max(plan.settings.udp_idle_s, plan.settings.tcp_idle_s)
        return not found if found is not None else now - self._idle_since[chain.name] > longest_s


def describe(plan: Plan, name: str, stats: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A policy's versions that run, the newest first, as `layer45 status --json` has them."""
    chains = {chain.name: chain for chain in plan.chains}
    mine = [each for each in plan.versions if each.policy == name]
    return [
        {
            "name": each.name,
            "version": each.label,
            "newest": not each.is_old,
            "since": iso(each.since),
            "class": chains[each.name].class_id,
            "queues": chains[each.name].queue.ends,
            "flows": stats.get(each.name, {}).get("flows", 0),
        }
        for each in sorted(mine, key=lambda each: (each.is_old, -each.since))
    ]
