"""Which owner keys hold for a socket, as one number in its mark.

An ingress packet has no owner to match, so the tagger marks each socket when it is made. At that moment
addresses and ports are not known: only user, group and cgroup are. Several policies may share those, so
the mark cannot be a class. It is a *tag*: the number of the set of owner keys that hold. The rules for
ingress then ask for "a tag with these keys in its set", and for the addresses.

The empty set has a number too, so that "no key holds" differs from "the tagger has not seen this socket".

Numbers come from what is in the set, so a socket that outlives a reload keeps a tag that is still right, or
one that no rule knows. The empty set's comes from all keys: it tells nothing about keys it was not asked.
"""

import hashlib
import itertools
from dataclasses import dataclass

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

    def hold(self, user: int | None, group: int | None, cgroup: str | None) -> bool:
        """Whether they hold for this owner; None stands for whatever no policy names."""
        return (
            (not self.user or user in self.user)
            and (not self.group or group in self.group)
            and (not self.cgroup or (cgroup is not None and any(within(cgroup, c) for c in self.cgroup)))
        )


@dataclass(frozen=True)
class OwnerTags:
    """keys: all of the plan's, without repetition. sets: tag number → places in keys of those that hold.

    problem: why there are no tags although keys need them, or empty.
    """

    keys: tuple[OwnerKeys, ...]
    sets: dict[int, frozenset[int]]
    problem: str = ""

    def having(self, selector: Selector) -> tuple[int, ...]:
        """The tags of sockets for which the selector's owner keys hold."""
        place = self.keys.index(owner_keys(selector))
        return tuple(sorted(tag for tag, places in self.sets.items() if place in places))

    def lacking(self, selector: Selector) -> tuple[int, ...]:
        """The tags of sockets for which they surely do not hold."""
        return tuple(sorted(set(self.sets) - set(self.having(selector))))


def owner_keys(selector: Selector) -> OwnerKeys:
    """The owner keys of a selector, in a canonical order."""
    user, group = (tuple(sorted(set(ids))) for ids in (selector.user, selector.group))
    return OwnerKeys(user, group, tuple(sorted(set(selector.cgroup))))


def owner_tags(plan: RulePlan) -> OwnerTags:
    """Number every set of owner keys that can hold together."""
    selectors = [s for d in plan.diversions for s in (d.select, d.unless) if s is not None and s.owned]
    keys = tuple(dict.fromkeys(map(owner_keys, selectors)))
    users, groups, cgroups = ({v for k in keys for v in getattr(k, n)} for n in ("user", "group", "cgroup"))
    if not keys:
        return OwnerTags((), {})
    if len(keys) > MAX_KEYS or (len(users) + 1) * (len(groups) + 1) * (len(cgroups) + 1) > MAX_OWNERS:
        return OwnerTags(keys, {}, f"too many different user, group and cgroup keys; at most {MAX_KEYS} fit")
    owners = itertools.product(*([None, *sorted(values)] for values in (users, groups, cgroups)))
    sets = dict.fromkeys(frozenset(i for i, k in enumerate(keys) if k.hold(*owner)) for owner in owners)
    if len(sets) > plan.marks.capacity:
        return OwnerTags(keys, {}, f"{len(sets)} sets of owner keys, marks for {plan.marks.capacity}")
    return OwnerTags(keys, _numbered(keys, list(sets), plan.marks.capacity))


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
