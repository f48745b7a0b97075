"""Counters that an operator should hear of once: those with notice = true in their module.toml."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from layer45.loader import ChainPlan


@dataclass(frozen=True)
class Notice:
    """A counter of a module in a policy's chain. meaning: its help."""

    policy: str
    module: str
    counter: str
    meaning: str


class Notices:
    """What has not been told yet of the chains that run."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, str], list[Notice]] = {}  # by what the engine knows a chain by

    def follow(self, chains: Iterable[ChainPlan]) -> None:
        """These run now. Of one that ran before and was kept, what was told is not told again."""
        before = self._waiting
        self._waiting = {}
        for chain in chains:
            key = chain.class_id, chain.text
            self._waiting[key] = before[key] if key in before else _notices_of(chain)

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def take(self, policies: Mapping[str, Any]) -> list[Notice]:
        """Those that are above 0 now, each once. policies: of Engine.stats."""
        risen = [each for waiting in self._waiting.values() for each in waiting if _count(each, policies)]
        self._waiting = {
            key: [each for each in waiting if each not in risen] for key, waiting in self._waiting.items()
        }
        return risen


def _notices_of(chain: ChainPlan) -> list[Notice]:
    """One for each counter, however often its module stands in the chain."""
    manifests = {each.module.name: each.module.manifest for each in chain.instances}
    return [
        Notice(chain.name, module, counter, manifest.counters[counter])
        for module, manifest in manifests.items()
        for counter in manifest.notices
    ]


def _count(notice: Notice, policies: Mapping[str, Any]) -> int:
    instances = policies.get(notice.policy, {}).get("instances", ())
    return sum(
        each["counters"].get(notice.counter, 0) for each in instances if each["module"] == notice.module
    )
