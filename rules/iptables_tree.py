"""A decision tree as chains.

The chain asks one question after the other; each yes goes to a chain of its own (<chain>.1, <chain>.2, …),
each no to the next question, and at the end of each way stand the rules that are left. All is reached by
goto.
"""

from collections.abc import Callable, Sequence
from itertools import count

from layer45.rules import tree
from layer45.rules.iptables_ruleset import Ruleset
from layer45.rules.tree import Box, Fork, Node

Ask = Callable[[str, int, int], str]  # axis, first, last → match
Add = Callable[[str, int], str]  # chain, place of what stands there → the chain in which to go on behind it


def write(
    rules: Ruleset, chain: str, boxes: Sequence[Box], ask: Ask, add: Add, end: Sequence[str] = ()
) -> None:
    """The rules with these boxes into a chain and those below it. end: the rules behind them."""
    trees = tree.grow(tuple(boxes), tree.LEAF)
    many = len(trees) > 1 or any(isinstance(each, Fork) for each in trees)
    if many and end:
        for rule in end:
            rules.add(f"{chain}.end", rule)
        end = [f"-g {rules.name(f'{chain}.end')}"]
    writer = _Writer(rules, chain, ask, add)
    start = chain
    for number, node in enumerate(trees):
        following = writer.fresh() if number < len(trees) - 1 else ""
        writer.node(node, start, [f"-g {rules.name(following)}"] if following else end)
        start = following
    if not trees:
        writer.rest(chain, end)


class _Writer:
    def __init__(self, rules: Ruleset, chain: str, ask: Ask, add: Add) -> None:
        self._rules, self._ask, self._add = rules, ask, add
        self._names = (f"{chain}.{number:x}" for number in count(1))

    def fresh(self) -> str:
        """The name of a chain that is not there yet."""
        return next(self._names)

    def node(self, node: Node, chain: str, end: Sequence[str]) -> None:
        below = []
        while isinstance(node, Fork):
            inside = self.fresh()
            match = self._ask(node.axis, node.first, node.last)
            self._rules.add(chain, match, f"-g {self._rules.name(inside)}")
            below.append((node.inside, inside))
            node = node.outside
        last = chain
        for place in node.places:
            last = self._add(last, place)
        self.rest(last, end)
        for each, inside in below:
            self.node(each, inside, end)

    def rest(self, chain: str, end: Sequence[str]) -> None:
        """What stands behind all else."""
        self._rules.begin(chain)
        for rule in end:
            self._rules.add(chain, rule)
