"""Versions of a policy that run beside each other: flows finish on the one that they began with.

A policy comes in another version if its key `version` (or that of a policy that it includes), or the version
of a module that was in its chain before too, is another one than before. Then the version that ran keeps its
class, with a name of its own ("voice@1"), its queue and its rules, which no new flow gets: conntrack's mark
tells whose a flow is, both ways. The new version gets another class. All other changes of a chain concern the
flows that are open, too.

An old version goes when it has no flow any more (old_versions.py), when its policy goes or stands by, or when
there are too many of them. One that comes back has the class that it had.
"""

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from layer45.composition import Composed, whole_chain, whole_version
from layer45.policy import ChainEntry, Policy

MOST_VERSIONS = 4  # of one policy at the same time, the newest among them


@dataclass(frozen=True)
class Version:
    """One version of a policy, with its chain.

    name: of its class; the policy's for the newest. entries: of the whole chain, as written. since: when it
    became the newest, in seconds of the clock.
    """

    name: str
    composed: Composed
    entries: tuple[ChainEntry, ...]
    since: float

    @property
    def policy(self) -> str:
        """The policy's name."""
        return self.composed.policy.name

    @property
    def label(self) -> str:
        """What people know it by."""
        return label(self.composed.policy.version, self.modules)

    @property
    def modules(self) -> dict[str, str]:
        """Those of its chain, name → version."""
        return _modules(self.composed)

    @property
    def is_old(self) -> bool:
        """Whether new flows get another one."""
        return self.name != self.policy


@dataclass(frozen=True)
class Succession:
    """versions: the newest in the order of their policies, then old ones. classes: numbers by name.

    remarks: old versions that had to go, a line each.
    """

    versions: tuple[Version, ...]
    classes: Mapping[str, int]
    remarks: tuple[str, ...] = ()


def label(version: str, modules: Mapping[str, str]) -> str:
    """What people know a version of a policy by: what it says itself, or its modules' versions, by name."""
    return version or "+".join(f"{name}-{each}" for name, each in modules.items()) or "0"


def succeed(
    running: Iterable[Composed],
    policies: Mapping[str, Policy],
    before: Sequence[Version],
    classes: Mapping[str, int],
    capacity: int,
) -> Succession:
    """What runs of these policies now, after what ran before with these classes.

    capacity: of classes; old versions are the first to go where there are too few.
    """
    numbers, newest, old, over = dict(classes), [], [], []
    ran: dict[str, list[Version]] = {}
    for each in before:
        ran.setdefault(each.policy, []).append(each)
    for composed in running:
        now = _newest(composed, policies)
        first, rest = _follow(now, ran.get(now.policy, ()), numbers)
        newest.append(first)
        old += rest[-(MOST_VERSIONS - 1) :]
        over += [(each, f"{MOST_VERSIONS} of a policy") for each in rest[: -(MOST_VERSIONS - 1)]]
    old.sort(key=lambda each: each.since)
    room = max(0, capacity - len(newest))
    over += [(each, f"as many as mark_mask numbers, {capacity},") for each in old[: max(0, len(old) - room)]]
    kept = old[max(0, len(old) - room) :]
    return Succession((*newest, *kept), numbers, tuple(_ends(each, most) for each, most in over))


def _newest(composed: Composed, policies: Mapping[str, Policy]) -> Version:
    policy = replace(composed.policy, version=whole_version(composed.policy, policies))
    entries = whole_chain(policy, policies)
    return Version(policy.name, replace(composed, policy=policy), entries, time.time())


def _follow(now: Version, mine: Sequence[Version], numbers: dict[str, int]) -> tuple[Version, list[Version]]:
    """The newest version, and the old ones, the oldest first; numbers follow the names."""
    last = next((each for each in mine if not each.is_old), None)
    old = sorted((each for each in mine if each.is_old), key=lambda each: each.since)
    if last is None or _same(last.composed, now.composed):
        return replace(now, since=last.since if last else now.since), old
    back = next((each for each in old if _same(each.composed, now.composed)), None)
    left = replace(last, name=_free_name(last, {each.name for each in old if each is not back}))
    number = numbers.pop(back.name, None) if back else None
    if last.name in numbers:
        numbers[left.name] = numbers.pop(last.name)
    if number:
        numbers[now.name] = number
    return now, [*(each for each in old if each is not back), left]


def _same(one: Composed, other: Composed) -> bool:
    """Whether open flows may go over from one chain to the other."""
    here, there = _modules(one), _modules(other)
    shared = here.keys() & there.keys()
    return one.policy.version == other.policy.version and all(here[name] == there[name] for name in shared)


def _modules(composed: Composed) -> dict[str, str]:
    """Name → version."""
    return {each.module.name: each.module.manifest.version for each in composed.instances}


def _free_name(version: Version, taken: Iterable[str]) -> str:
    name = f"{version.policy}@{version.label}"
    return next(each for each in _names(name) if each not in set(taken))


def _names(first: str) -> Iterable[str]:
    yield first
    yield from (f"{first}~{number}" for number in itertools.count(2))


def _ends(version: Version, most: str) -> str:
    of = f'policy "{version.policy}": its version {version.name.partition("@")[2]}'
    return f"{of} ends, and its flows lose it: versions that run at the same time are {most} at most"
