"""Which owner keys hold for a socket, as one number in its mark.

An ingress packet has no owner to match, and no packet has a program's name, so the tagger marks each socket
when it is made. At that moment addresses and ports are not known: only user, group, cgroup and program are.
Several policies may share those, so the mark cannot be a class. It is a *tag*: the number of the set of owner
keys that hold. The rules then ask for "a tag with these keys in its set", and for the addresses.

Where policies except owners, the empty set has a number too: only so "no key holds" differs from "the tagger
has not seen this socket". Elsewhere nobody's sockets keep a clear mark: the rules would have to clear it in
each packet, and the kernel then looks for the packet's way anew.

Numbers come from what is in the set, so a socket that outlives a reload keeps a tag that is still right, or
one that no rule knows. The empty set's comes from all keys: it tells nothing about keys it was not asked.
"""

import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from layer45.rules import cgroups
from layer45.rules.diversion import RulePlan, Selector

MOST_OWNERS = 1 << 14  # combinations of user, group, cgroup and program we are ready to look at


@dataclass(frozen=True)
class OwnerKeys:
    """The part of a selector that the tagger can decide."""

    user: tuple[int, ...] = ()
    group: tuple[int, ...] = ()
    cgroup: tuple[str, ...] = ()
    program: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Programs by the name that the kernel keeps of them."""
        return tuple(each for each in self.program if not is_path(each))

    @property
    def paths(self) -> tuple[str, ...]:
        """Programs by their executable."""
        return tuple(each for each in self.program if is_path(each))


@dataclass(frozen=True)
class Dimension:
    """One thing that an owner has. rows: value that some key names → its row; row 0 is that of all others.

    held: for each row, which keys it lets hold, as bits.
    """

    rows: dict[Any, int]
    held: list[int]


@dataclass(frozen=True)
class OwnerTags:
    """keys: the plan's, without repetition. sets: tag number → places in keys of those that hold.

    dimensions: user, group, cgroup, name, path. numbers: an owner's row in each → its tag.
    problem: why not every socket can have its tag, or empty. A socket without a tag is not matched by
    program, and on ingress not by owner before its first own packet.
    """

    keys: tuple[OwnerKeys, ...] = ()
    sets: dict[int, frozenset[int]] = field(default_factory=dict)
    dimensions: tuple[Dimension, ...] = ()
    numbers: dict[tuple[int, ...], int] = field(default_factory=dict)
    problem: str = ""

    def having(self, selector: Selector) -> tuple[int, ...]:
        """The tags of sockets for which the selector's owner keys surely hold."""
        return self._holding.get(owner_keys(selector), ())

    @property
    def of_nothing(self) -> int:
        """The tag of a socket for which no key holds; 0: it gets none."""
        return next((tag for tag, places in self.sets.items() if not places), 0)

    def lacking(self, selector: Selector) -> tuple[int, ...]:
        """The tags of sockets for which they surely do not hold."""
        holding = self._holding.get(owner_keys(selector))
        return () if holding is None else tuple(sorted(set(self.sets) - set(holding)))

    @functools.cached_property
    def _holding(self) -> dict[OwnerKeys, tuple[int, ...]]:
        tags: list[list[int]] = [[] for _ in self.keys]
        for tag in sorted(self.sets):
            for place in self.sets[tag]:
                tags[place].append(tag)
        return dict(zip(self.keys, map(tuple, tags), strict=True))


def is_path(program: str) -> bool:
    """Whether a program is told by its executable, and not by its name."""
    return program.startswith("/")


def owner_keys(selector: Selector) -> OwnerKeys:
    """The owner keys of a selector, in a canonical order."""
    return OwnerKeys(
        tuple(sorted(set(selector.user))),
        tuple(sorted(set(selector.group))),
        tuple(sorted(set(selector.cgroup))),
        tuple(sorted(set(selector.program))),
    )


@functools.lru_cache(maxsize=4)
def owner_tags(plan: RulePlan) -> OwnerTags:
    """Number every set of owner keys that can hold together."""
    keys = tuple(dict.fromkeys(owner_keys(each) for each in plan.selectors() if each.owned))
    if not keys:
        return OwnerTags()
    dimensions = _dimensions(keys)
    held = _combinations(dimensions)
    every = {bits: _places(bits) for bits in dict.fromkeys(held.values())}
    room = plan.marks.capacity
    if not any(each.unless and each.unless.owned for each in plan.diversions):
        del every[0]
    fitting = sorted(every, key=int.bit_count)[:room]  # the fewer keys hold together, the more common
    fitting.sort(key=lambda bits: not bits)  # nothing comes last: its number is never in another's way
    numbers = _numbered(keys, {bits: every[bits] for bits in fitting}, room)
    return OwnerTags(
        keys,
        {number: every[bits] for bits, number in numbers.items()},
        dimensions,
        {rows: numbers[bits] for rows, bits in held.items() if bits in numbers},
        _problem(dimensions, len(held), len(every), room),
    )


def _problem(dimensions: tuple[Dimension, ...], seen: int, sets: int, room: int) -> str:
    owners = math.prod(len(each.held) for each in dimensions)
    if seen < owners:
        return f"{owners} combinations of users, groups, cgroups and programs; the {seen} simplest are told"
    if sets > room:
        return f"{sets} sets of owner keys can hold together, marks for {room}; a wider mark_mask helps"
    return ""


def _dimensions(keys: tuple[OwnerKeys, ...]) -> tuple[Dimension, ...]:
    """A key that does not ask for a thing lets it hold. Of programs, it may ask for names and paths."""
    programs = [k.program for k in keys]
    return (
        _dimension([k.user for k in keys]),
        _dimension([k.group for k in keys]),
        _dimension([k.cgroup for k in keys], above=cgroups.above),
        _dimension([k.names for k in keys], programs),
        _dimension([k.paths for k in keys], programs),
    )


def _dimension(
    named: list[tuple[Any, ...]],
    asked: list[tuple[Any, ...]] | None = None,
    above: Callable[[Any], Iterable[Any]] = lambda value: (),
) -> Dimension:
    """named: each key's values. above: what else holds for who has a value."""
    free = sum(1 << place for place, values in enumerate(asked or named) if not values)
    naming: dict[Any, int] = {}
    for place, values in enumerate(named):
        for value in values:
            naming[value] = naming.get(value, 0) | 1 << place
    rows: dict[Any, int] = {}
    held = {free: 0}
    for value, bits in naming.items():
        every = functools.reduce(int.__or__, (naming.get(each, 0) for each in above(value)), free | bits)
        rows[value] = held.setdefault(every, len(held))
    return Dimension(rows, list(held))


def _combinations(dimensions: tuple[Dimension, ...]) -> dict[tuple[int, ...], int]:
    """Rows → the keys that hold, as bits. A program's name or its path is enough.

    Owners of whom keys name only one thing come first, then those of two: not all may find room.
    """
    combined: dict[tuple[int, ...], int] = {}
    for rows in itertools.islice(_owners(dimensions), MOST_OWNERS):
        user, group, cgroup, name, path = (d.held[row] for d, row in zip(dimensions, rows, strict=True))
        combined[rows] = user & group & cgroup & (name | path)
    return combined


def _owners(dimensions: tuple[Dimension, ...]) -> Iterator[tuple[int, ...]]:
    for count in range(len(dimensions) + 1):
        for named in itertools.combinations(range(len(dimensions)), count):
            rows = [range(1, len(d.held)) if at in named else (0,) for at, d in enumerate(dimensions)]
            yield from itertools.product(*rows)


def _places(bits: int) -> frozenset[int]:
    found = []
    while bits:
        found.append(bits.bit_length() - 1)
        bits ^= 1 << found[-1]
    return frozenset(found)


def _numbered(keys: tuple[OwnerKeys, ...], sets: dict[int, Iterable[int]], capacity: int) -> dict[int, int]:
    """Bits → number."""
    numbered: dict[int, int] = {}
    taken: set[int] = set()
    for bits, places in sets.items():
        text = "\n".join(sorted(repr(keys[place]) for place in places)) or repr(keys)
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % capacity
        while number + 1 in taken:
            number = (number + 1) % capacity
        taken.add(number + 1)
        numbered[bits] = number + 1
    return numbered
