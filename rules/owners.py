"""Which owner keys hold for a socket, as one number in its mark.

An ingress packet has no owner to match, so the tagger marks each socket when it is made. At that moment
addresses and ports are not known: only user, group and cgroup are. Several policies may share those, so
the mark cannot be a class. It is a *tag*: the number of the set of owner keys that hold. The rules for
ingress then ask for "a tag with these keys in its set", and for the addresses.

The empty set has a number too, so that "no key holds" differs from "the tagger has not seen this socket".

Numbers come from what is in the set, so a socket that outlives a reload keeps a tag that is still right, or
one that no rule knows. The empty set's comes from all keys: it tells nothing about keys it was not asked.
"""

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from layer45.rules.cgroups import within
from layer45.rules.diversion import RulePlan, Selector

MAX_KEYS = 64  # the tagger keeps which of them hold in one register
MAX_OWNERS = 1 << 17  # combinations of user, group, cgroup we are ready to look at


@dataclass(frozen=True)
class OwnerKeys:
    """The part of a selector that the tagger can decide."""

    user: tuple[int, ...]
    group: tuple[int, ...]
    cgroup: tuple[str, ...]


@dataclass(frozen=True)
class OwnerTags:
    """keys: the plan's, without repetition. sets: tag number → places in keys of those that hold.

    problem: why not every socket can have its tag, or empty. A socket without a tag is not matched by owner
    before its first own packet.
    """

    keys: tuple[OwnerKeys, ...]
    sets: dict[int, frozenset[int]]
    problem: str = ""

    def having(self, selector: Selector) -> tuple[int, ...]:
        """The tags of sockets for which the selector's owner keys surely hold."""
        return self._tags(selector, True)

    def lacking(self, selector: Selector) -> tuple[int, ...]:
        """The tags of sockets for which they surely do not hold."""
        return self._tags(selector, False)

    def _tags(self, selector: Selector, hold: bool) -> tuple[int, ...]:
        wanted = owner_keys(selector)
        if wanted not in self.keys:
            return ()
        place = self.keys.index(wanted)
        return tuple(sorted(tag for tag, places in self.sets.items() if (place in places) == hold))


def owner_keys(selector: Selector) -> OwnerKeys:
    """The owner keys of a selector, in a canonical order."""
    user, group = (tuple(sorted(set(ids))) for ids in (selector.user, selector.group))
    return OwnerKeys(user, group, tuple(sorted(set(selector.cgroup))))


@functools.lru_cache(maxsize=4)
def owner_tags(plan: RulePlan) -> OwnerTags:
    """Number every set of owner keys that can hold together."""
    selectors = [s for d in plan.diversions if d.select for s in (d.select, d.unless) if s and s.owned]
    every = tuple(dict.fromkeys(map(owner_keys, selectors)))
    keys = every[:MAX_KEYS]
    if not keys:
        return OwnerTags((), {})
    sets = _sets(keys)
    room = plan.marks.capacity
    fitting = sorted(sets, key=len)[:room]  # the fewer keys hold together, the more common
    return OwnerTags(keys, _numbered(keys, fitting, room), _problem(len(every), len(sets), room))


def _problem(keys: int, sets: int, room: int) -> str:
    if not sets:
        return "too many combinations of users, groups and cgroups"
    if keys > MAX_KEYS:
        return (
            f"{keys} different combinations of user, group and cgroup keys; only the first {MAX_KEYS} count"
        )
    if sets > room:
        return f"{sets} sets of owner keys can hold together, marks for {room}; a wider mark_mask helps"
    return ""


def _sets(keys: tuple[OwnerKeys, ...]) -> list[frozenset[int]]:
    """What can hold together, the empty set included. A value no key names stands for all others."""
    users = _holding(keys, lambda k: k.user, lambda values, user: user in values)
    groups = _holding(keys, lambda k: k.group, lambda values, group: group in values)
    cgroups = _holding(keys, lambda k: k.cgroup, lambda values, path: any(within(path, v) for v in values))
    if len(users) * len(groups) * len(cgroups) > MAX_OWNERS:
        return []
    bits = dict.fromkeys(u & g & c for u, g, c in itertools.product(users, groups, cgroups))
    return [frozenset(place for place in range(len(keys)) if held >> place & 1) for held in bits]


def _holding(
    keys: tuple[OwnerKeys, ...],
    part: Callable[[OwnerKeys], tuple[Any, ...]],
    hold: Callable[[tuple[Any, ...], Any], bool],
) -> list[int]:
    """For each value that a key names, and last for none of them: which keys' part holds, as bits."""
    values: Iterable[Any] = dict.fromkeys(value for key in keys for value in part(key))
    rows = [[not part(key) or hold(part(key), value) for key in keys] for value in values]
    rows.append([not part(key) for key in keys])
    return list(dict.fromkeys(sum(held << place for place, held in enumerate(row)) for row in rows))


def _numbered(
    keys: tuple[OwnerKeys, ...], sets: list[frozenset[int]], capacity: int
) -> dict[int, frozenset[int]]:
    numbered: dict[int, frozenset[int]] = {}
    for places in sets:
        text = "\n".join(sorted(repr(keys[place]) for place in places)) or repr(keys)
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % capacity
        while number + 1 in numbered:
            number = (number + 1) % capacity
        numbered[number + 1] = places
    return numbered
