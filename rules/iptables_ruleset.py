"""What the rulesets of both tables are made of: chains, policies, ways to queues, questions to the map."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from layer45.rules import known, pins, spread
from layer45.rules.diversion import Diversion, QueueGroup, RulePlan, Selector
from layer45.rules.iptables_match import Alternatives
from layer45.rules.kernel_chain import NOBODYS_QUEUE
from layer45.rules.kernel_chains import pinned_name, verdicts
from layer45.rules.names import chain_prefix, comment
from layer45.rules.owners import OwnerTags, owner_tags

Spread = Callable[[int, int, int], list[spread.Instruction]]

LEAVE = "-j RETURN"  # out of our chains, where the chain was reached by goto alone
# For what a kernel chain's programs say. A queue that nobody reads drops as a verdict of the engine does: who
# sent the packet does not hear of it. With DROP, send() would fail.
TARGETS = {"passes": "-j ACCEPT", "drops": f"-j NFQUEUE --queue-num {NOBODYS_QUEUE}"}


@dataclass
class Ruleset:
    """The chains of one family, in the order they were begun."""

    plan: RulePlan
    family: int
    direction: str = ""  # of the packets that the map is asked for: "out" or "in"
    chains: dict[str, list[str]] = field(default_factory=dict)
    tags: OwnerTags = field(init=False)

    def __post_init__(self) -> None:
        self.tags = owner_tags(self.plan)

    def name(self, part: str) -> str:
        """The full name of one of our chains."""
        return chain_prefix(self.plan.owner) + part

    def add(self, part: str, *words: str) -> None:
        """Append a rule to one of our chains."""
        self.chains.setdefault(self.name(part), []).append(" ".join(word for word in words if word))

    def begin(self, part: str) -> None:
        """Make sure that a chain exists, rules or not."""
        self.chains.setdefault(self.name(part), [])

    def asks(self, program: str, direction: str = "") -> str:
        """A match for packets of connections of which one of the map's programs says yes."""
        return (
            f"-m bpf --object-pinned {known.program(self.plan.owner, program, direction or self.direction)}"
        )

    def numbered(self, axis: str, first: int, last: int) -> str:
        """A match for a block of numbers: of a packet's "tag", or of its connection's "class"."""
        marks, kind = self.plan.marks, {"tag": "mark", "class": "connmark"}[axis]
        mask = marks.class_mask & ~marks.spread(last - first)
        return f"-m {kind} --mark {marks.spread(first):#x}/{mask:#x}"

    def tagged(self, numbers: Iterable[int]) -> Alternatives:
        """Matches for packets of sockets with one of these tags; 0 is a socket never tagged."""
        return [self.numbered("tag", number, number) for number in numbers]

    def tagged_with_keys(self, selector: Selector) -> Alternatives:
        """The same, for tags that say that a selector's owner keys hold."""
        return self.tagged(self.tags.having(selector))

    def tagged_maybe_with_keys(self, selector: Selector) -> Alternatives:
        """The same, and sockets of which nothing is known; all, if no tag tells that the keys do not hold."""
        certain = self.tags.lacking(selector)
        return self.tagged((*self.tags.having(selector), 0)) if certain else [""]

    def masked(self, value: int = 0, also: int = 0) -> str:
        """A value of our field, and the field, for --mark and --set-xmark."""
        return f"{value:#x}/{self.plan.marks.class_mask | also:#x}"


def of_protocol(plan: RulePlan, protocol: str) -> list[tuple[int, Diversion]]:
    """The diversions that concern a protocol, with their places in the plan."""
    return [(number, each) for number, each in enumerate(plan.diversions) if each.concerns(protocol)]


def clear(rules: Ruleset) -> str:
    """Our field of the packet's mark."""
    return f"-m mark ! --mark {rules.masked()} -j MARK --set-xmark {rules.masked()}"


def note(diversion: Diversion) -> str:
    """The policy's name, where its packets come by; it is a match too, and costs as much as one."""
    return f'-m comment --comment "{comment(diversion.policy)}"'


def stream_hit(rules: Ruleset, diversion: Diversion) -> None:
    """The class into the packet's mark, and to its queues.

    Without a listener, an open policy's connections pass, but customized ones never. The connection's mark
    stays clear: the map knows better, and outlives conntrack's entry.
    """
    chain, queues, marks = f"stream{diversion.class_id}", diversion.queues, rules.plan.marks
    if rules.name(chain) in rules.chains:
        return
    done = marks.exempt_bit if rules.direction == "out" else 0  # with OUTPUT: mangle comes behind raw
    value = rules.masked(marks.spread(diversion.class_id) | done, done)
    rules.add(chain, note(diversion), f"-j MARK --set-xmark {value}")
    if queues.bypass:
        to_queues(rules, chain, replace(queues, bypass=False), rules.asks("customized"), "firm")
    to_queues(rules, chain, queues)


def remember(rules: Ruleset, chain: str, class_id: int) -> None:
    """The class in the connection's mark. One that is new to it takes the word of another chain out of it."""
    value, exempt = rules.plan.marks.spread(class_id), rules.plan.marks.exempt_bit
    if rules.plan.letting_go:
        new = f"-m connmark ! --mark {rules.masked(value)}"
        rules.add(chain, new, f"-j CONNMARK --set-xmark {rules.masked(value, exempt)}")
    else:
        rules.add(chain, f"-j CONNMARK --set-xmark {rules.masked(value)}")


def kernel_hit(rules: Ruleset, diversion: Diversion) -> None:
    """The class into the connection's mark; then the chain's programs say what becomes of the packet.

    What they leave goes to the queues. To accept here is what a verdict of the engine does: the packet goes
    on behind our hook.
    """
    assert diversion.kernel is not None
    chain, came, rest = (f"{part}{diversion.class_id}" for part in ("hit", "came", "rest"))
    value = rules.masked(rules.plan.marks.spread(diversion.class_id))
    place = pins.directory(rules.plan.owner)
    remember(rules, chain, diversion.class_id)
    if rules.tags.sets:
        rules.add(chain, clear(rules))
    rules.add(chain, note(diversion), f"-m conntrack --ctdir REPLY -g {rules.name(came)}")
    for at, begun in ((chain, True), (came, False)):
        for verdict in verdicts(diversion.kernel):
            name = pinned_name(diversion.class_id, verdict, begun)
            target = _with_dscp(rules, verdict) if isinstance(verdict, int) else TARGETS[verdict]
            rules.add(at, f"-m bpf --object-pinned {place / name}", target)
        rules.add(at, f"-g {rules.name(rest)}")
    rules.add(rest, f"-j MARK --set-xmark {value}")
    to_queues(rules, rest, diversion.queues)


def _with_dscp(rules: Ruleset, dscp: int) -> str:
    """To a chain that writes the field, and lets the packet go on as those that pass."""
    chain = f"dscp{dscp}"
    if rules.name(chain) not in rules.chains:
        rules.add(chain, f"-j DSCP --set-dscp {dscp:#x}")
        rules.add(chain, TARGETS["passes"])
    return f"-g {rules.name(chain)}"


def to_queues(
    rules: Ruleset, chain: str, queues: QueueGroup, match: str = "", name: str = "queue",
    bytecode: Spread = spread.bytecode,
) -> None:  # fmt: skip
    """To the worker that has the flow. name: of the chain that spreads them, one for each way to do so."""
    spreading = f"{name}{queues.first}"
    if queues.workers == 1:
        rules.add(chain, match, _queue(rules, queues, 0))
        return
    rules.add(chain, match, f"-g {rules.name(spreading)}")
    if rules.name(spreading) in rules.chains:
        return
    for worker in range(queues.workers - 1):
        program = spread.as_text(bytecode(rules.family, worker, queues.workers))
        rules.add(spreading, f'-m bpf --bytecode "{program}"', _queue(rules, queues, worker))
    rules.add(spreading, _queue(rules, queues, queues.workers - 1))


def _queue(rules: Ruleset, queues: QueueGroup, worker: int) -> str:
    if queues.copies:
        return _copies(rules, queues.first + worker)
    bypass = " --queue-bypass" if queues.bypass else ""
    return f"-j NFQUEUE --queue-num {queues.first + worker}{bypass}"


def _copies(rules: Ruleset, group: int) -> str:
    """To a chain that copies the packet and lets it go on where one from a queue does: behind our hook.

    The mark has told whose packet it is. With another one than before, its way would be looked for anew.
    """
    chain = f"copies{group}"
    if rules.name(chain) not in rules.chains:
        rules.add(chain, f"-j NFLOG --nflog-group {group}")
        rules.add(chain, f"-j MARK --set-xmark {rules.masked()}")
        rules.add(chain, "-j ACCEPT")
    return f"-g {rules.name(chain)}"
