"""Many rules as a decision tree, so that a packet meets only the few that may match it, in their order.

Rules are looked at one after the other: a thousand policies would cost every packet a thousand looks. So
questions stand in front of them, each about one thing that most rules ask for: "is the remote port at most
5000?". A rule that may match on both sides stands on both. What a rule itself asks is left as it is: the
tree only has to leave no rule out that may match.

A *box* is what a rule may match at most: axis → spans of numbers, any of them; an axis that is not there: all
numbers. Axes are what a backend can ask for; of some (BLOCKS) only for blocks, as of addresses and bits.
"""

import functools
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

Span = tuple[int, int]  # first, last; inclusive
Spans = tuple[Span, ...]  # in order, apart
Box = tuple[tuple[str, Spans], ...]  # axis, spans

DEPTH = 8  # how deep a tree is at most: chains lead to chains 16 times, NFT_JUMP_STACK_SIZE of the kernel
LEAF = 8  # so few rules are looked at one after the other
DEAR = frozenset({"user", "group"})  # a question costs as much as two others
MOST_RUNS = 8
SIZES = {"local_port": 1 << 16, "remote_port": 1 << 16, "user": 1 << 32, "group": 1 << 32}
SETS = ("local_port", "remote_port")  # of which one rule can ask for several spans
SET_SLOTS = 15  # so many, as slots counts them
WITHOUT_GUARD = 2  # so few rules cost less than a question
BLOCKS = frozenset({"local", "remote", "tag", "class", "number"})  # 2^n numbers, the first a multiple of 2^n


@dataclass(frozen=True)
class Leaf:
    """What to look at, in order: places, and the box that the way to here has left of each one's."""

    entries: tuple[tuple[int, Box], ...]


@dataclass(frozen=True)
class Fork:
    """Where to go if a packet's number on the axis is in one of the spans, and where if not."""

    axis: str
    spans: Spans
    inside: "Node"
    outside: "Node"


Node = Leaf | Fork
NOTHING = Leaf(())
Entry = tuple[int, dict[str, Spans]]


def spans(numbers: Iterable[int]) -> Spans:
    """Single numbers as spans."""
    return joined((each, each) for each in numbers)


def slots(span: Span) -> int:
    """What a span takes of SET_SLOTS, as in iptables' multiport match."""
    return 1 if span[0] == span[1] else 2


def joined(found: Iterable[Span]) -> Spans:
    """Spans in order, with those that touch or overlap as one."""
    merged: list[Span] = []
    for first, last in sorted(found):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return tuple(merged)


def number_boxes(numbers: Iterable[int]) -> list[Box]:
    """Of rules that each want one number, of which blocks can be asked for."""
    return [(("number", ((each, each),)),) for each in numbers]


@functools.lru_cache(maxsize=32)
def grow(
    boxes: tuple[Box, ...], leaf: int, depth: int, common: tuple[tuple[str, int], ...] = ()
) -> tuple[Node, ...]:
    """The trees for rules with these boxes, to be asked one behind the other; none for no rules.

    leaf: how many rules need no question. depth: how often a way through a tree may go inside. common: axes
    and the numbers there that many packets have, to be asked for first where they match nothing.

    Rules that ask for the same axes, one behind the other, share a tree. Rules by program among rules by port
    would each stand in every corner of the others' tree.
    """
    entries = [(place, dict(box)) for place, box in enumerate(boxes)]
    if _weight(entries) <= leaf:
        return (_leaf(entries),) if entries else ()
    runs = [list(run) for _, run in groupby(entries, key=lambda entry: frozenset(entry[1]))]
    if len(runs) > MOST_RUNS:
        runs = [entries]
    return tuple(_within(run, _grow(run, _leaf_for(run, leaf), depth - 1), common) for run in runs)


def _leaf_for(entries: Sequence[Entry], leaf: int) -> int:
    """None is looked at in vain where looking is dear."""
    return 1 if any(DEAR & set(box) for _, box in entries) else leaf


def _within(entries: Sequence[Entry], node: Node, common: Iterable[tuple[str, int]]) -> Node:
    """Behind questions for packets that none of them may match: most are nobody's."""
    if isinstance(node, Leaf):
        return node
    for axis, number in common:
        may_match, _, _ = _split(entries, (axis, number, number))
        if not may_match:
            node = Fork(axis, ((number, number),), NOTHING, node)
    hulls = ((axis, [box.get(axis, ()) for _, box in entries]) for axis in SIZES)
    spanned = {axis: (min(found)[0][0], max(s[-1][1] for s in found)) for axis, found in hulls if all(found)}
    sizes = {axis: (last - first + 1) / SIZES[axis] for axis, (first, last) in spanned.items()}
    axis = min(sizes, key=lambda each: sizes[each], default="")
    if not axis or sizes[axis] > 0.5:
        return node
    return Fork(axis, (spanned[axis],), node, NOTHING)


Question = tuple[str, int, int]  # axis, first, last


def _grow(entries: list[Entry], leaf: int, depth: int) -> Node:
    if depth <= 0:
        return _leaf(entries)
    if _weight(entries) <= leaf:
        return _guarded(entries, _leaf(entries))
    splits = (_split(entries, question) for question in _questions(entries))
    inside, outside, question = min(splits, key=_cost, default=([], [], None))
    if question is None or _pointless(*map(_weight, (entries, inside, outside))):
        return _leaf(entries)
    axis, first, last = question
    return Fork(axis, ((first, last),), _grow(inside, leaf, depth - 1), _grow(outside, leaf, depth))


def _guarded(entries: Sequence[Entry], node: Leaf) -> Node:
    """Behind the question whether any of them may match, where one rule can ask that for several."""
    for axis in SETS if len(entries) > WITHOUT_GUARD else ():
        asking = [box.get(axis, ()) for _, box in entries]
        every = joined(each for found in asking for each in found)
        if all(asking) and sum(map(slots, every)) <= SET_SLOTS:
            return Fork(axis, every, node, NOTHING)
    return node


def _leaf(entries: Sequence[Entry]) -> Leaf:
    return Leaf(tuple((place, tuple(box.items())) for place, box in entries))


def _weight(entries: Sequence[Entry]) -> int:
    """How many rules they are: of tags, each number needs one."""
    return sum(len(box.get("tag", "x")) for _, box in entries)


def _pointless(every: int, inside: int, outside: int) -> bool:
    """Whether too many rules would stand on both sides."""
    return max(inside, outside) == every or inside + outside > every + every // 4 + 1


Split = tuple[list[Entry], list[Entry], Question | None]


def _cost(split: Split) -> tuple[int, int]:
    inside, outside, _ = split
    yes, no = _weight(inside), _weight(outside)
    return max(yes, no), yes + no


def _split(entries: Sequence[Entry], question: Question) -> Split:
    """Who may match with a yes, and who with a no, with what is left of their boxes."""
    axis, first, last = question
    inside, outside = [], []
    for place, box in entries:
        having = box.get(axis)
        if having is None:
            inside.append((place, box))
            outside.append((place, box))
            continue
        within = tuple((max(a, first), min(b, last)) for a, b in having if a <= last and b >= first)
        if within:
            inside.append((place, {**box, axis: within}))
        if within != having:
            outside.append((place, {**box, axis: _without(having, first, last)}))
    return inside, outside, question


def _without(having: Spans, first: int, last: int) -> Spans:
    left = ((a, min(b, first - 1)) for a, b in having if a < first)
    right = ((max(a, last + 1), b) for a, b in having if b > last)
    return tuple(sorted([*left, *right]))


def _questions(entries: Sequence[Entry]) -> Iterable[Question]:
    """The best that can be asked on each axis."""
    for axis in dict.fromkeys(axis for _, box in entries for axis in box):
        asking = [box[axis] for _, box in entries if axis in box]
        found = (_block if axis in BLOCKS else _half)(asking)
        if found:
            yield axis, *found


def _half(asking: Sequence[Spans]) -> Span | None:
    """From 0 to before the middle one of all beginnings."""
    begins = sorted({first for each in asking for first, _ in each})
    return (0, begins[len(begins) // 2] - 1) if len(begins) > 1 else None


def _block(asking: Sequence[Spans]) -> Span | None:
    """A block that has a third to two thirds of all beginnings, if there is one."""
    begins = sorted(first for each in asking for first, _ in each)
    lowest, highest = begins[0], max(last for each in asking for _, last in each)
    bits = (lowest ^ highest).bit_length()
    first, count = lowest >> bits << bits, len(begins)
    while bits and count * 3 > len(begins) * 2:
        bits -= 1
        middle = first + (1 << bits)
        low = bisect_left(begins, middle) - bisect_left(begins, first)
        high = bisect_left(begins, middle + (1 << bits)) - bisect_left(begins, middle)
        first, count = (first, low) if low >= high else (middle, high)
    return first, first + (1 << bits) - 1
