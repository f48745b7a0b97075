"""A plan as text for `iptables-restore --noflush`, for one family.

The way of a packet through our chains (mangle table; M is the class mask, E the exempt bit). What is marked
[map] is there only where a policy renumbers TCP connections: iptables_raw.py diverts their egress before it
comes here.

    OUTPUT → out:  E set: leave. Clear M in the packet mark if set (where a policy asks for a program, behind
                   the policies: until then, M is the sending socket's tag). UDP → out-udp, TCP → out-tcp
             out-tcp, without SYN, and any packet without a socket → known-*
             SYN/ACK of a connection that has a class → known-tcp
             else the policies, first match → hit. No match: clear M in the connection's mark
    INPUT  → in:   clear M and E in the packet mark if set. UDP → in-udp, TCP → in-tcp
             [map] ICMP → in-error
             [map] in-tcp, of a connection in the map → known-map
             in-tcp, without SYN, and any reply to what we sent first → known-*
             a connection that has a class → known-*, and back if that class is gone
             else the receiving socket's tag into the packet mark, then the policies, first match → hit.
             No match: clear M
             Policies that no new flow gets are first, and match those on egress that have their class
    known-udp, known-tcp:  class of the connection, if a policy of this protocol has it → hit; else clear it
    hit<class>:  class into packet mark and connection mark → its queues; or dropped, if revoked
                 Before that, where the chain may be done with flows: E in the connection's mark → left
                 Where the kernel runs the chain: class into connection mark, replies → came<class>; what
                 programs know is accepted or dropped, all else → rest<class>
    came<class>: the same, with the programs for replies
    rest<class>: class into packet mark → its queues
    left:        clear M in the packet mark: back to the hook, and on without us
    [map] known-map:  class that the map says → stream<class>. No such policy, but customized: drop
    [map] stream<class>:  class into packet mark → its queues; ingress policies that renumber lead here, too
    [map] in-error:  error about a connection in the map → error<class>. No such policy: leave
    [map] error<class>:  class into packet mark → its queues, to the worker that has the connection

A TCP connection so keeps what its SYN or SYN/ACK decided, in segments of closed sockets too. Who opened a
flow from here was asked on egress, where the owner is certain; ingress only asks for flows from outside.
Every chain is reached by goto from its hook, so that its end is the end of ours. A policy of more than one
stage has chains of its own, entered by a jump: its end goes back to the next policy. Where many are looked
through, policies, tags or classes, a tree of questions leads to few of them (iptables_tree.py).
"""

from collections.abc import Iterable

from layer45.rules import iptables_raw
from layer45.rules.diversion import Diversion, RulePlan
from layer45.rules.iptables_map import errors, known_map
from layer45.rules.iptables_match import Place
from layer45.rules.iptables_policies import by_number, known_tags, only_known_tags, policies
from layer45.rules.iptables_ruleset import (
    LEAVE,
    Ruleset,
    clear,
    kernel_hit,
    note,
    of_protocol,
    remember,
    stream_hit,
    to_queues,
)
from layer45.rules.names import chain_prefix

PROTOCOLS = ("udp", "tcp")
TABLES = {"mangle": {"OUTPUT": "out", "INPUT": "in"}, "raw": {"OUTPUT": "raw"}}  # hook → our chain there
ICMP = {4: "icmp", 6: "ipv6-icmp"}
NO_SYN = "-p tcp -m tcp ! --tcp-flags SYN SYN"
SYN_ACK = "-p tcp -m tcp --tcp-flags SYN,ACK SYN,ACK"  # not yet of a full socket: no cgroup match knows it


def render(plan: RulePlan, family: int) -> dict[str, list[str]]:
    """Chain name → its rules' words, in the mangle table. The jumps there are the installer's business."""
    rules = Ruleset(plan, family, "in")
    _egress(rules)
    _ingress(rules)
    for protocol in PROTOCOLS:
        _known(rules, protocol)
    for diversion in plan.diversions:
        _hit(rules, diversion)
    return rules.chains


def render_tables(plan: RulePlan, family: int) -> dict[str, dict[str, list[str]]]:
    """Table → its chains, for all tables that could have some. See iptables_raw.py for the other one."""
    return {"mangle": render(plan, family), "raw": iptables_raw.render(plan, family)}


def render_text(plan: RulePlan, family: int) -> str:
    """What empty tables would be given."""
    prefix = chain_prefix(plan.owner)
    return "".join(
        restore_text(table, [*declare(chains), *jumps(table, prefix), *appended(chains)])
        for table, chains in render_tables(plan, family).items()
        if chains
    )


def jumps(table: str, prefix: str) -> list[str]:
    """From the hooks to our chains."""
    return [f"-A {hook} -j {prefix}{part}" for hook, part in TABLES[table].items()]


def restore_text(table: str, lines: list[str]) -> str:
    """One transaction on a table."""
    return "\n".join([f"*{table}", *lines, "COMMIT", ""])


def declare(chains: dict[str, list[str]]) -> list[str]:
    """Create the chains, or empty them where they exist."""
    return [f":{name} - [0:0]" for name in chains]


def appended(chains: dict[str, list[str]]) -> list[str]:
    """Fill the chains."""
    return [f"-A {name} {rule}" for name, rules in chains.items() for rule in rules]


def _wanted(plan: RulePlan) -> list[str]:
    return [protocol for protocol in PROTOCOLS if of_protocol(plan, protocol)]


def _egress(rules: Ruleset) -> None:
    exempt = rules.plan.marks.exempt_bit
    rules.add("out", f"-m mark --mark {exempt:#x}/{exempt:#x} -j RETURN")
    for protocol in PROTOCOLS:
        if rules.plan.by_program(protocol):
            _egress_by_tag(rules, protocol)
    rules.add("out", clear(rules))
    others = [protocol for protocol in PROTOCOLS if not rules.plan.by_program(protocol)]
    _branch(rules, "out", others)
    for protocol in _wanted(rules.plan):
        if protocol in others:
            _egress_of(rules, protocol, rules.name(f"known-{protocol}"))


def _egress_by_tag(rules: Ruleset, protocol: str) -> None:
    """The packet has its socket's mark, until the policies have seen the tag in it."""
    known = f"out-known-{protocol}"
    rules.add("out", f"-p {protocol} -g {rules.name(f'out-{protocol}')}")
    rules.add(known, clear(rules))
    rules.add(known, f"-g {rules.name(f'known-{protocol}')}")
    _egress_of(rules, protocol, rules.name(known), clear(rules))


def _egress_of(rules: Ruleset, protocol: str, known: str, *end: str) -> None:
    """end: what else is done where no policy has matched."""
    chain = f"out-{protocol}"
    if protocol == "tcp":
        rules.add(chain, f"{NO_SYN} -g {known}")
        rules.add(chain, f"{SYN_ACK} -m connmark ! --mark {rules.masked()} -g {known}")
    rules.add(chain, f"-m owner ! --socket-exists -g {known}")
    only_known_tags(rules, chain, protocol)
    place = Place(rules.family, True, protocol, rules.tagged_with_keys)
    policies(rules, chain, place, _way, [_forget(rules), *end])


def _branch(rules: Ruleset, chain: str, protocols: Iterable[str] = PROTOCOLS) -> None:
    """To the protocol's chain; where no policy wants the protocol any more, only forget what one wanted."""
    wanted = _wanted(rules.plan)
    for protocol in protocols:
        way = f"-g {rules.name(f'{chain}-{protocol}')}" if protocol in wanted else _forget(rules)
        rules.add(chain, f"-p {protocol}", way)


def _ingress(rules: Ruleset) -> None:
    exempt = rules.plan.marks.exempt_bit
    ours, none = rules.masked(also=exempt), rules.masked()
    rules.add("in", f"-m mark ! --mark {ours} -j MARK --set-xmark {ours}")
    if rules.plan.ending:
        rules.add("in", "-p tcp", rules.asks("customized"), "-j DROP")
    _branch(rules, "in")
    if rules.plan.renumbering:
        rules.add("in", f"-p {ICMP[rules.family]} -g {rules.name('in-error')}")
        errors(rules, "in-error")
    for protocol in _wanted(rules.plan):
        chain, known = f"in-{protocol}", rules.name(f"known-{protocol}")
        if protocol == "tcp" and rules.plan.renumbering:
            rules.add(chain, rules.asks("known"), f"-g {rules.name('known-map')}")
            known_map(rules, "known-map")
        if protocol == "tcp":
            rules.add(chain, f"{NO_SYN} -g {known}")
        rules.add(chain, f"-m conntrack --ctdir REPLY -g {known}")
        if rules.plan.letting_go:  # not a jump: who has left does not come back to the policies
            rules.add(chain, f"-m connmark --mark {exempt:#x}/{exempt:#x} -g {known}")
        rules.add(chain, f"-m connmark ! --mark {none} -j {known}")
        tagged = _needs_tags(rules, protocol)
        if tagged:
            rules.add(chain, f"-m mark --mark 0x0 -j {rules.name('socket')}")
        place = Place(rules.family, False, protocol, rules.tagged_with_keys)
        policies(rules, chain, place, _way, [clear(rules)] if tagged else [])
    _read_tag(rules)


def _needs_tags(rules: Ruleset, protocol: str) -> bool:
    return bool(rules.tags.sets) and any(each.owned for each in rules.plan.selectors(protocol))


def _read_tag(rules: Ruleset) -> None:
    """The socket's mark overwrites the whole packet mark: only where nobody set a bit. Keep our field."""
    if any(_needs_tags(rules, protocol) for protocol in PROTOCOLS):
        others = ~rules.plan.marks.class_mask & 0xFFFFFFFF
        keep = f"-j MARK --set-xmark 0x0/{others:#x}"
        rules.add("socket", f"-m socket --nowildcard --restore-skmark {keep}")
        if any(each.unless and each.unless.owned for each in rules.plan.diversions):
            known_tags(rules, "socket")


def _forget(rules: Ruleset) -> str:
    """Of what has no policy. Where nothing is forgotten, conntrack is asked all the same.

    With the last rule that does, its hooks would go, and with them every packet that waits in a queue
    (nf_queue_nf_hook_drop).
    """
    if not rules.plan.forgets:
        return f"-m connmark ! --mark {rules.masked()} -j RETURN"
    return f"-m connmark ! --mark {rules.masked()} -j CONNMARK --set-xmark {rules.masked()}"


def _way(rules: Ruleset, diversion: Diversion, place: Place) -> str | None:
    """Where packets go that a policy matches. What raw should have diverted is left alone in mangle.

    Flows that keep their class are asked for on egress alone: the others of them have been found by then.
    """
    stream = diversion.renumbers and place.protocol == "tcp"
    if diversion.flows != "any" and (stream or not place.egress):
        return None
    if not stream:
        return f"-g {rules.name(f'hit{diversion.class_id}')}"
    return LEAVE if place.egress else f"-g {rules.name(f'stream{diversion.class_id}')}"


def _known(rules: Ruleset, protocol: str) -> None:
    """By the connection's mark; renumbering classes are in the map, and nowhere else."""
    concerned = [each for _, each in of_protocol(rules.plan, protocol)]
    marked = [each for each in concerned if not (each.renumbers and protocol == "tcp")]
    if marked:  # most connections have no class: out at once
        rules.add(f"known-{protocol}", f"-m connmark --mark {rules.masked()} -j RETURN")
    if concerned:
        classes = dict.fromkeys(each.class_id for each in marked)
        ways = {number: f"-g {rules.name(f'hit{number}')}" for number in classes}
        by_number(rules, f"known-{protocol}", "class", ways, [_forget(rules)])


def _hit(rules: Ruleset, diversion: Diversion) -> None:
    if diversion.renumbers and diversion.concerns("tcp"):
        stream_hit(rules, diversion)
    chain = f"hit{diversion.class_id}"
    if rules.name(chain) in rules.chains or (not diversion.concerns("udp") and diversion.renumbers):
        return
    if diversion.flows == "ended":
        rules.add(chain, "-j DROP")
        return
    if diversion.kernel:
        kernel_hit(rules, diversion)
        return
    value = rules.masked(rules.plan.marks.spread(diversion.class_id))
    if diversion.lets_go:
        _leave(rules, chain, diversion.class_id)
    rules.add(chain, note(diversion), f"-j MARK --set-xmark {value}")
    remember(rules, chain, diversion.class_id)
    to_queues(rules, chain, diversion.queues)


def _leave(rules: Ruleset, chain: str, class_id: int) -> None:
    """A flow that the chain is done with stays in the kernel."""
    marks, exempt = rules.plan.marks, rules.plan.marks.exempt_bit
    done = rules.masked(marks.spread(class_id) | exempt, exempt)
    rules.add(chain, f"-m connmark --mark {done} -g {rules.name('left')}")
    if rules.name("left") not in rules.chains:
        rules.add("left", clear(rules))
