"""A plan as text for `iptables-restore --noflush`, for one family.

The way of a packet through our chains (mangle table; M is the class mask, E the exempt bit):

    OUTPUT → out:  E set: leave. Clear M in the packet mark if set. UDP → out-udp, TCP → out-tcp
             out-tcp, without SYN, and any packet without a socket → known-*
             SYN/ACK of a connection that has a class → known-tcp
             else the policies, first match → hit. No match: clear M in the connection's mark
    INPUT  → in:   clear M and E in the packet mark if set. UDP → in-udp, TCP → in-tcp
             in-tcp, without SYN, and any reply to what we sent first → known-*
             a connection that has a class → known-*, and back if that class is gone
             else the receiving socket's tag into the packet mark, then the policies, first match → hit.
             No match: clear M
    known-udp, known-tcp:  class of the connection, if a policy of this protocol has it → hit; else clear it
    hit<class>:  class into packet mark and connection mark → its queues

A TCP connection so keeps what its SYN or SYN/ACK decided, in segments of closed sockets too. Who opened a
flow from here was asked on egress, where the owner is certain; ingress only asks for flows from outside.
Every chain is reached by goto from its hook, so that its end is the end of ours. A policy of more than one
stage has chains of its own, entered by a jump: its end goes back to the next policy.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from layer45.rules import spread
from layer45.rules.diversion import Diversion, QueueGroup, RulePlan, Selector
from layer45.rules.iptables_match import Alternatives, Place, stages
from layer45.rules.names import chain_prefix, comment
from layer45.rules.owners import OwnerTags, owner_tags

PROTOCOLS = ("udp", "tcp")
HOOKS = {"OUTPUT": "out", "INPUT": "in"}
NO_SYN = "-p tcp -m tcp ! --tcp-flags SYN SYN"
SYN_ACK = "-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK"  # not yet of a full socket: no cgroup match knows it


@dataclass
class Ruleset:
    """The chains of one family, in the order they were begun."""

    plan: RulePlan
    family: int
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

    def tagged(self, numbers: Iterable[int]) -> Alternatives:
        """Matches for packets of sockets with one of these tags; 0 is a socket never tagged."""
        return [f"-m mark --mark {self.masked(self.plan.marks.spread(number))}" for number in numbers]

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


def render(plan: RulePlan, family: int) -> dict[str, list[str]]:
    """Chain name → its rules' words. The jumps from OUTPUT and INPUT are the installer's business."""
    rules = Ruleset(plan, family)
    _egress(rules)
    _ingress(rules)
    for protocol in PROTOCOLS:
        _known(rules, protocol)
    for diversion in plan.diversions:
        _hit(rules, diversion)
    return rules.chains


def render_text(plan: RulePlan, family: int) -> str:
    """What an empty mangle table would be given."""
    chains = render(plan, family)
    jumps = [f"-A {hook} -j {chain_prefix(plan.owner)}{part}" for hook, part in HOOKS.items()]
    return restore_text([*declare(chains), *jumps, *appended(chains)])


def restore_text(lines: list[str]) -> str:
    """One transaction on the mangle table."""
    return "\n".join(["*mangle", *lines, "COMMIT", ""])


def declare(chains: dict[str, list[str]]) -> list[str]:
    """Create the chains, or empty them where they exist."""
    return [f":{name} - [0:0]" for name in chains]


def appended(chains: dict[str, list[str]]) -> list[str]:
    """Fill the chains."""
    return [f"-A {name} {rule}" for name, rules in chains.items() for rule in rules]


def _of_protocol(plan: RulePlan, protocol: str) -> list[tuple[int, Diversion]]:
    return [
        (number, diversion)
        for number, diversion in enumerate(plan.diversions)
        if not diversion.select.protocol or protocol in diversion.select.protocol
    ]


def _wanted(plan: RulePlan) -> list[str]:
    return [protocol for protocol in PROTOCOLS if _of_protocol(plan, protocol)]


def _egress(rules: Ruleset) -> None:
    exempt = rules.plan.marks.exempt_bit
    rules.add("out", f"-m mark --mark {exempt:#x}/{exempt:#x} -j RETURN")
    rules.add("out", f"-m mark ! --mark {rules.masked()} -j MARK --set-xmark {rules.masked()}")
    _branch(rules, "out")
    for protocol in _wanted(rules.plan):
        chain, known = f"out-{protocol}", rules.name(f"known-{protocol}")
        if protocol == "tcp":
            rules.add(chain, f"{NO_SYN} -g {known}")
            rules.add(chain, f"{SYN_ACK} -m connmark ! --mark {rules.masked()} -g {known}")
        rules.add(chain, f"-m owner ! --socket-exists -g {known}")
        _policies(rules, chain, Place(rules.family, True, protocol, lambda selector: []))
        rules.add(chain, _forget(rules))


def _branch(rules: Ruleset, chain: str) -> None:
    """To the protocol's chain; where no policy wants the protocol any more, only forget what one wanted."""
    wanted = _wanted(rules.plan)
    for protocol in PROTOCOLS:
        way = f"-g {rules.name(f'{chain}-{protocol}')}" if protocol in wanted else _forget(rules)
        rules.add(chain, f"-p {protocol}", way)


def _ingress(rules: Ruleset) -> None:
    exempt = rules.plan.marks.exempt_bit
    ours, none = rules.masked(also=exempt), rules.masked()
    rules.add("in", f"-m mark ! --mark {ours} -j MARK --set-xmark {ours}")
    _branch(rules, "in")
    for protocol in _wanted(rules.plan):
        chain, known = f"in-{protocol}", rules.name(f"known-{protocol}")
        if protocol == "tcp":
            rules.add(chain, f"{NO_SYN} -g {known}")
        rules.add(chain, f"-m conntrack --ctdir REPLY -g {known}")
        rules.add(chain, f"-m connmark ! --mark {none} -j {known}")
        tagged = _needs_tags(rules, protocol)
        if tagged:
            rules.add(chain, f"-m mark --mark 0x0 -j {rules.name('socket')}")
        _policies(rules, chain, Place(rules.family, False, protocol, rules.tagged_with_keys))
        if tagged:
            rules.add(chain, f"-m mark ! --mark {none} -j MARK --set-xmark {none}")
    _read_tag(rules)


def _needs_tags(rules: Ruleset, protocol: str) -> bool:
    selectors = [s for _, d in _of_protocol(rules.plan, protocol) for s in (d.select, d.unless) if s]
    return bool(rules.tags.sets) and any(selector.owned for selector in selectors)


def _read_tag(rules: Ruleset) -> None:
    """The socket's mark overwrites the whole packet mark: only where nobody set a bit. Keep our field."""
    if any(_needs_tags(rules, protocol) for protocol in PROTOCOLS):
        others = ~rules.plan.marks.class_mask & 0xFFFFFFFF
        keep = f"-j MARK --set-xmark 0x0/{others:#x}"
        rules.add("socket", f"-m socket --nowildcard --restore-skmark {keep}")
        for match in rules.tagged(rules.tags.sets):
            rules.add("socket", f"{match} -j RETURN")
        rules.add("socket", f"-j MARK --set-xmark {rules.masked()}")  # an unknown tag tells nothing


def _policies(rules: Ruleset, chain: str, place: Place) -> None:
    for number, diversion in _of_protocol(rules.plan, place.protocol):
        select = stages(diversion.select, place)
        cautious = replace(place, tag_match=rules.tagged_maybe_with_keys)
        unless = stages(diversion.unless, cautious) if diversion.unless else None
        if select is None:
            continue
        hit = f"-g {rules.name(f'hit{diversion.class_id}')}"
        note = f'-m comment --comment "{comment(diversion.policy)}"'
        if len(select) == 1 and unless is None:
            for match in select[0]:
                rules.add(chain, match, note, hit)
        else:
            own = f"{'o' if place.egress else 'i'}{place.protocol[0]}{number}"
            rules.add(chain, note, f"-j {rules.name(own)}")
            _stage_chains(rules, own, unless, select, hit)


def _stage_chains(
    rules: Ruleset, own: str, unless: list[Alternatives] | None, select: list[Alternatives], hit: str
) -> None:
    selection = own if unless is None else f"{own}s"
    if unless is not None:
        _conjunction(rules, own, unless, "-j RETURN", f"-g {rules.name(selection)}")
    _conjunction(rules, selection, select, hit, "")


def _conjunction(rules: Ruleset, start: str, stages: list[Alternatives], holds: str, fails: str) -> None:
    """Chains from start on that do `holds` if every stage holds, else `fails`; if empty, that leads back."""
    for place, alternatives in enumerate(stages):
        chain = f"{start}.{place}" if place else start
        last = place == len(stages) - 1
        for match in alternatives:
            rules.add(chain, match, holds if last else f"-g {rules.name(f'{start}.{place + 1}')}")
        if fails:
            rules.add(chain, fails)


def _forget(rules: Ruleset) -> str:
    return f"-m connmark ! --mark {rules.masked()} -j CONNMARK --set-xmark {rules.masked()}"


def _known(rules: Ruleset, protocol: str) -> None:
    diversions = _of_protocol(rules.plan, protocol)
    if diversions:  # most connections have no class: out at once
        rules.add(f"known-{protocol}", f"-m connmark --mark {rules.masked()} -j RETURN")
    for class_id in dict.fromkeys(diversion.class_id for _, diversion in diversions):
        value = rules.masked(rules.plan.marks.spread(class_id))
        rules.add(f"known-{protocol}", f"-m connmark --mark {value} -g {rules.name(f'hit{class_id}')}")
    if diversions:
        rules.add(f"known-{protocol}", _forget(rules))


def _hit(rules: Ruleset, diversion: Diversion) -> None:
    chain = f"hit{diversion.class_id}"
    if rules.name(chain) in rules.chains:
        return
    value = rules.masked(rules.plan.marks.spread(diversion.class_id))
    rules.add(chain, f"-j MARK --set-xmark {value}")
    rules.add(chain, f"-j CONNMARK --set-xmark {value}")
    if diversion.queues.workers == 1:
        rules.add(chain, _queue(diversion.queues, 0))
    else:
        rules.add(chain, f"-g {rules.name(f'queue{diversion.queues.first}')}")
        _spread(rules, diversion.queues)


def _spread(rules: Ruleset, queues: QueueGroup) -> None:
    chain = f"queue{queues.first}"
    if rules.name(chain) in rules.chains:
        return
    for worker in range(queues.workers - 1):
        program = spread.as_text(spread.bytecode(rules.family, worker, queues.workers))
        rules.add(chain, f'-m bpf --bytecode "{program}"', _queue(queues, worker))
    rules.add(chain, _queue(queues, queues.workers - 1))


def _queue(queues: QueueGroup, worker: int) -> str:
    bypass = " --queue-bypass" if queues.bypass else ""
    return f"-j NFQUEUE --queue-num {queues.first + worker}{bypass}"
