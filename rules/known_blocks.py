"""The blocks of classes that rules ask the map of known connections for; there is a program for each.

Single classes, and where there are many, larger blocks, which a tree of questions begins with (tree.py).
"""

from collections.abc import Collection, Iterator

from layer45.rules import tree
from layer45.rules.tree import Fork, Node, Span


def blocks(classes: Collection[int]) -> set[Span]:
    """All that is asked for, as first and last class."""
    asked = {(each, each) for each in classes}
    for root in tree.grow(tuple(tree.number_boxes(classes)), tree.LEAF, tree.DEPTH):
        asked.update(_forks(root))
    return asked


def _forks(node: Node) -> Iterator[Span]:
    if isinstance(node, Fork):
        yield from node.spans
        yield from _forks(node.inside)
        yield from _forks(node.outside)


def name(first: int, last: int) -> str:
    """Of the program for a block, without its direction."""
    return f"class{first}" if first == last else f"class{first}_{last}"
