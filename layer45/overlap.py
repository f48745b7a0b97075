"""Can one socket match two policies? Decided by intersecting their selectors, key by key."""

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from layer45.rules.diversion import Network, PortRange, Selector
from layer45.rules.owners import is_path
from layer45.selector import families


def overlap(
    first: Selector, second: Selector, first_unless: Selector | None, second_unless: Selector | None
) -> bool:
    """Whether some socket may match both. Never wrongly False.

    Wrongly True only where several values of an `unless` together, but none alone, exclude what both match.
    """
    both = intersection(first, second)
    if both is None:
        return False
    return not any(unless and covers(unless, both) for unless in (first_unless, second_unless))


def intersection(first: Selector, second: Selector) -> Selector | None:
    """What both select; None if nothing."""
    met: dict[str, tuple[Any, ...]] = {}
    for key, meet in _MEET.items():
        ours, theirs = getattr(first, key), getattr(second, key)
        if ours and theirs:
            met[key] = tuple(dict.fromkeys(_meetings(ours, theirs, meet)))
            if not met[key]:
                return None
        else:
            met[key] = ours or theirs
    both = Selector(**met)
    return both if families(both) else None


def covers(outer: Selector, inner: Selector) -> bool:
    """Whether outer selects all that inner selects; may be wrongly False, never wrongly True."""
    return all(
        _covers_key(getattr(outer, key), getattr(inner, key), meet)
        for key, meet in _MEET.items()
        if getattr(outer, key)
    )


def _covers_key(outer: tuple[Any, ...], inner: tuple[Any, ...], meet: Callable[[Any, Any], Any]) -> bool:
    """Each inner value lies whole in one outer value."""
    return bool(inner) and all(any(meet(each, one) == each for one in outer) for each in inner)


def _meetings(ours: Iterable[Any], theirs: Iterable[Any], meet: Callable[[Any, Any], Any]) -> Iterable[Any]:
    met = (meet(one, other) for one, other in product(ours, theirs))
    return (each for each in met if each is not None)


def _same(one: object, other: object) -> object:
    return one if one == other else None


def _network(one: Network, other: Network) -> Network | None:
    if one.version != other.version or not one.overlaps(other):
        return None
    return max(one, other, key=lambda each: each.prefixlen)


def _ports(one: PortRange, other: PortRange) -> PortRange | None:
    first, last = max(one[0], other[0]), min(one[1], other[1])
    return (first, last) if first <= last else None


def _cgroup(one: str, other: str) -> str | None:
    """A cgroup selects all below it, too."""
    short, long = sorted((one, other), key=len)
    return long if f"{long}/".startswith(f"{short}/") else None


def _program(one: str, other: str) -> str | None:
    """A name and an executable may be the same program's: neither covers both."""
    if one == other:
        return one
    return f"{one} {other}" if is_path(one) != is_path(other) else None


# The cheapest and likeliest to differ first: hundreds of policies are compared pair by pair.
_MEET: dict[str, Callable[[Any, Any], Any]] = {
    "remote_port": _ports,
    "local_port": _ports,
    "protocol": _same,
    "user": _same,
    "group": _same,
    "cgroup": _cgroup,
    "program": _program,
    "local": _network,
    "remote": _network,
}
