"""Which of many selectors may meet: a quick look at all of them, so that few pairs need a close one.

A set of selectors is a number, bit i for selector i. Each key is looked at alone, addresses and cgroups not
at all: two that are no candidates surely do not overlap, and neither covers the other.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from layer45.rules.diversion import PortRange, Selector
from layer45.rules.owners import is_path

EQUAL = ("protocol", "user", "group")
PORTS = ("local_port", "remote_port")


def pairs(selectors: Sequence[Selector]) -> Iterator[tuple[int, int]]:
    """Places of candidates, the first smaller than the second."""
    for place, bits in enumerate(candidates(selectors)):
        later = bits >> place + 1
        while later:
            lowest = later & -later
            yield place, place + lowest.bit_length()
            later ^= lowest


def candidates(selectors: Sequence[Selector]) -> list[int]:
    """For each selector the set of those that it may meet, itself among them."""
    found = [(1 << len(selectors)) - 1] * len(selectors)
    for key in EQUAL:
        _narrow(found, [getattr(each, key) for each in selectors], _sharing)
    _narrow(found, [each.program for each in selectors], _programs)
    for key in PORTS:
        _narrow(found, [getattr(each, key) for each in selectors], _ports)
    return found


def _narrow(found: list[int], values: list[tuple[Any, ...]], meeting: Any) -> None:
    """Where a selector has no value, it meets all."""
    free = sum(1 << place for place, each in enumerate(values) if not each)
    for place, bits in enumerate(meeting(values)):
        if values[place]:
            found[place] &= free | bits


def _sharing(values: list[tuple[Any, ...]]) -> list[int]:
    having: dict[Any, int] = {}
    for place, each in enumerate(values):
        for value in each:
            having[value] = having.get(value, 0) | 1 << place
    return [_union(having[value] for value in each) for each in values]


def _programs(values: list[tuple[str, ...]]) -> list[int]:
    """A name and an executable may be the same program's."""
    of_kind = [
        sum(1 << place for place, each in enumerate(values) if any(is_path(one) == kind for one in each))
        for kind in (False, True)
    ]
    same = _sharing(values)
    return [bits | _union(of_kind[not is_path(one)] for one in values[i]) for i, bits in enumerate(same)]


def _ports(values: list[tuple[PortRange, ...]]) -> list[int]:
    """Between two neighbouring edges, the same selectors have all ports."""
    edges = sorted({edge for each in values for first, last in each for edge in (first, last + 1)})
    changes = [0] * (len(edges) + 1)
    for place, each in enumerate(values):
        for edge in (edge for span in _spans(each, edges) for edge in span):
            changes[edge] ^= 1 << place
    having = list(accumulate(changes, int.__xor__))
    return [_union(having[at] for within in _spans(each, edges) for at in range(*within)) for each in values]


def _spans(ranges: tuple[PortRange, ...], edges: list[int]) -> list[tuple[int, int]]:
    """The ranges as places in edges, those that touch or overlap as one."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        start, end = bisect_left(edges, first), bisect_left(edges, last + 1)
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _union(sets: Iterator[int]) -> int:
    every = 0
    for each in sets:
        every |= each
    return every
