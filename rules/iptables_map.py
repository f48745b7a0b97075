"""Rules that ask the map of known connections for the class of a packet's connection (known.py)."""

from collections.abc import Callable
from dataclasses import replace

from layer45.rules import known_blocks, spread
from layer45.rules.iptables_ruleset import Ruleset, to_queues
from layer45.rules.iptables_tree import write_numbers
from layer45.rules.known_program import ERROR


def known_map(rules: Ruleset, chain: str) -> None:
    """To the queues of the class that the map says; drop customized ones whose class is gone."""
    end = f"{rules.asks('customized')} -j DROP"
    _by_class(rules, chain, "", lambda class_id: f"stream{class_id}", end)


def errors(rules: Ruleset, chain: str) -> None:
    """ICMP errors about known connections to the queues of the class that the map says, with its mark.

    They pass where nobody listens: what the engine adds to them is that the kernel takes notice.
    """
    renumbering = {d.class_id: d for d in rules.plan.diversions if d.class_id in rules.plan.renumbering}
    _by_class(rules, chain, ERROR, lambda class_id: f"error{class_id}")
    for class_id, diversion in renumbering.items():
        own = f"error{class_id}"
        rules.add(own, f"-j MARK --set-xmark {rules.masked(rules.plan.marks.spread(class_id))}")
        to_queues(rules, own, replace(diversion.queues, bypass=True), "", "errors", spread.bytecode_of_errors)


def _by_class(rules: Ruleset, chain: str, direction: str, way: Callable[[int], str], *end: str) -> None:
    ways = {class_id: f"-g {rules.name(way(class_id))}" for class_id in rules.plan.renumbering}

    def ask(first: int, last: int) -> str:
        return rules.asks(known_blocks.name(first, last), direction)

    write_numbers(rules, chain, ways, ask, end)
