"""The decision tree: no rule that may match is left out, order stays, and few are left to look at."""

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from layer45.rules import tree
from layer45.rules.tree import Box, Fork, Leaf, Node, Span, Spans, grow, joined, spans

AXES = ("local", "remote_port", "tag", "user")
LAST = 63

some_spans = st.lists(st.tuples(st.integers(0, LAST), st.integers(0, 9)), min_size=1, max_size=4).map(
    lambda found: joined((first, min(LAST, first + more)) for first, more in found)
)
boxes = st.dictionaries(st.sampled_from(AXES), some_spans).map(lambda axes: tuple(axes.items()))
points = st.fixed_dictionaries({axis: st.integers(0, LAST) for axis in AXES})


def within(found: Spans, number: int) -> bool:
    return any(first <= number <= last for first, last in found)


def meets(box: Box, point: dict[str, int]) -> bool:
    return all(within(found, point[axis]) for axis, found in box)


def asked(node: Node, point: dict[str, int]) -> tuple[int, Leaf]:
    """How many questions lead a packet to which leaf."""
    questions = 0
    while isinstance(node, Fork):
        node = node.inside if within(node.spans, point[node.axis]) else node.outside
        questions += 1
    return questions, node


def places(leaf: Leaf) -> list[int]:
    return [place for place, _ in leaf.entries]


def looked_at(trees: tuple[Node, ...], point: dict[str, int]) -> list[int]:
    return [place for each in trees for place in places(asked(each, point)[1])]


def forks(node: Node) -> Iterator[Fork]:
    if isinstance(node, Fork):
        yield node
        yield from forks(node.inside)
        yield from forks(node.outside)


def levels(node: Node) -> int:
    """How often a way through a tree goes inside."""
    return max(levels(node.inside) + 1, levels(node.outside)) if isinstance(node, Fork) else 0


@settings(max_examples=500)
@given(
    st.lists(boxes, max_size=40),
    st.lists(points, min_size=1, max_size=20),
    st.integers(1, 8),
    st.integers(0, 9),
)
def test_what_may_match_is_looked_at_once_and_in_order(
    found: list[Box], packets: list[dict[str, int]], leaf: int, depth: int
) -> None:
    trees = grow(tuple(found), leaf, depth)
    for packet in packets:
        seen = looked_at(trees, packet)
        assert seen == sorted(set(seen))
        assert {place for place, box in enumerate(found) if meets(box, packet)} <= set(seen)


@given(st.lists(boxes, max_size=40), st.integers(1, 8), st.integers(1, 9))
def test_what_a_rule_can_ask_for(found: list[Box], leaf: int, depth: int) -> None:
    for fork in (fork for each in grow(tuple(found), leaf, depth) for fork in forks(each)):
        assert levels(fork) <= depth
        if fork.axis in tree.SETS:
            assert 0 < len(fork.spans) <= tree.SET_SLOTS
            continue
        ((first, last),) = fork.spans
        assert first <= last
        if fork.axis in tree.BLOCKS:
            size = last - first + 1
            assert size & (size - 1) == 0 and first % size == 0


def test_of_a_thousand_few_are_looked_at() -> None:
    """By port, by tags that lie anywhere, by network, by both of two; and with some who want everything."""
    ports = [(("remote_port", ((port, port),)),) for port in range(5000, 6000)]
    tags = [(("tag", spans([number * 7919 % 4096])),) for number in range(1000)]
    networks = [(("remote", ((base << 8, (base << 8) + 255),)),) for base in range(0x0A0000, 0x0A0000 + 1000)]
    both = [
        (("local_port", ((n % 25, n % 25),)), ("remote_port", ((n // 25, n // 25),))) for n in range(1000)
    ]
    wide = [*ports[:995], *((("remote_port", ((1, 65535 - n),)),) for n in range(5))]
    for found, most in ((ports, 8), (tags, 8), (networks, 8), (both, 8), (wide, 16)):
        for place in range(0, 1000, 9):
            box = dict(found[place])
            point = {axis: box[axis][0][0] if axis in box else 0 for axis in (*AXES, "remote", "local_port")}
            (only,) = grow(tuple(found), tree.LEAF, 9)
            questions, leaf = asked(only, point)
            assert place in places(leaf)
            assert len(places(leaf)) <= most
            assert questions <= 14


def test_a_leaf_has_what_is_left_of_each_box() -> None:
    """Programs of whom each has a tag with each of many users: a tag leads to its program alone."""
    found = [(("tag", spans(range(program, 900, 30))),) for program in range(30)]
    (only,) = grow(tuple(found), tree.LEAF, 9)
    for tag in range(900):
        questions, leaf = asked(only, {"tag": tag})
        assert tag % 30 in places(leaf)
        assert questions <= 14
        assert sum(len(dict(box)["tag"]) for _, box in leaf.entries) <= tree.LEAF
        assert all(meets(box, {"tag": tag}) == (place == tag % 30) for place, box in leaf.entries)


def test_few_need_no_question() -> None:
    found = tuple((("remote_port", ((port, port),)),) for port in range(tree.LEAF))
    assert grow(found, tree.LEAF, 9) == (Leaf(tuple(enumerate(found))),)
    assert grow((), tree.LEAF, 9) == ()


def test_rules_that_ask_for_other_things_have_trees_of_their_own() -> None:
    found = [(("tag", spans([n])),) for n in range(100)] + [(("user", spans([n])),) for n in range(100)]
    first, second = grow(tuple(found), tree.LEAF, 9)
    assert {fork.axis for fork in forks(first)} == {"tag"}
    assert {fork.axis for fork in forks(second)} == {"user"}


def test_those_that_cannot_be_told_apart_stay_together() -> None:
    found: list[Box] = [(("remote_port", ((1, 65535),)),)] * 50
    assert grow(tuple(found), tree.LEAF, 9) == (Leaf(tuple(enumerate(found))),)


def test_spans_that_touch_are_one() -> None:
    found: list[Span] = [(5, 6), (1, 2), (3, 3), (9, 9), (6, 7)]
    assert joined(found) == ((1, 3), (5, 7), (9, 9))
