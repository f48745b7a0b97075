"""Decision trees as chains.

The chain asks one question after the other; each yes goes to a chain of its own (<chain>.1, <chain>.2, …),
each no to the next question, and at the end of each way stand the rules that are left. All is reached by
goto, but for trees that another one follows, whose ends must come back.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count

from layer45.rules import tree
from layer45.rules.iptables_ruleset import LEAVE, Ruleset
from layer45.rules.tree import Box, Fork, Leaf, Node, Spans

Ask = Callable[[str, Spans], str]  # axis, numbers on it → match
# Chain, place of what stands there, what is left of its box → the chain in which to go on behind it.
Add = Callable[[str, int, Box], str]


def write(
    rules: Ruleset, chain: str, boxes: Sequence[Box], ask: Ask, add: Add, end: Sequence[str] = (),
    levels: int = 0, returns: bool = True, common: tuple[tuple[str, int], ...] = (),
) -> None:  # fmt: skip
    """The rules with these boxes into a chain and those below it. end: the rules behind them.

    levels: of chains that the rules lead to before they hit. returns: coming back from a chain goes on with
    the next rules; else some rule leaves all by that, so that there can be one tree only. common: see grow.
    """
    trees = tree.grow(tuple(boxes), tree.LEAF, tree.DEPTH - levels, common)
    if len(trees) > 1 and not returns:
        trees = (Leaf(tuple(enumerate(boxes))),)
    writer = _Writer(rules, chain, ask, add)
    for node in trees[:-1]:
        writer.followed(node, chain)
    last = trees[-1] if trees else tree.NOTHING
    below = end
    if len(end) > 1 and isinstance(last, Fork):
        for rule in end:
            rules.add(f"{chain}.end", rule)
        below = [f"-g {rules.name(f'{chain}.end')}"]
    writer.node(last, chain, below, end)


def write_numbers(
    rules: Ruleset, chain: str, ways: Mapping[int, str], ask: Callable[[int, int], str], end: Sequence[str]
) -> None:
    """A way for each number. ask: for a block of numbers, first and last. end: as for write."""
    numbers = list(ways)

    def add(at: str, place: int, _: Box) -> str:
        number = numbers[place]
        rules.add(at, ask(number, number), ways[number])
        return at

    write(rules, chain, tree.number_boxes(numbers), lambda _, blocks: ask(*blocks[0]), add, end)


class _Writer:
    def __init__(self, rules: Ruleset, chain: str, ask: Ask, add: Add) -> None:
        self._rules, self._ask, self._add = rules, ask, add
        self._names = (f"{chain}.{number:x}" for number in count(1))

    def followed(self, node: Node, chain: str) -> None:
        """A tree that is left by its end. One question that no packet may pass is asked before the jump."""
        match = ""
        if isinstance(node, Fork) and node.outside == tree.NOTHING:
            match, node = self._ask(node.axis, node.spans), node.inside
        first = next(self._names)
        self._rules.add(chain, match, f"-j {self._rules.name(first)}")
        self.node(node, first, ())

    def node(self, node: Node, chain: str, end: Sequence[str], here: Sequence[str] | None = None) -> None:
        """end: the rules behind each way; here: those at the end of this chain, if they are others."""
        below = []
        while isinstance(node, Fork):
            match = self._ask(node.axis, node.spans)
            if node.inside == tree.NOTHING and len(end) < 2:
                self._rules.add(chain, match, *(end or [LEAVE]))
            else:
                inside = next(self._names)
                self._rules.add(chain, match, f"-g {self._rules.name(inside)}")
                below.append((node.inside, inside))
            node = node.outside
        last = chain
        for place, box in node.entries:
            last = self._add(last, place, box)
        self._rules.begin(last)
        for rule in end if here is None else here:
            self._rules.add(last, rule)
        for each, inside in below:
            self.node(each, inside, end)
