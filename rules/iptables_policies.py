"""The part of a chain that finds a packet's policy, and what else is found by a number among many."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from layer45.rules.boxes import box
from layer45.rules.diversion import Diversion
from layer45.rules.iptables_match import Alternatives, Place, question, stages
from layer45.rules.iptables_ruleset import LEAVE, Ruleset, clear, of_protocol
from layer45.rules.iptables_tree import write, write_numbers
from layer45.rules.tree import Box, Spans

Way = Callable[[Ruleset, Diversion, Place], str | None]


@dataclass(frozen=True)
class _Policy:
    """own: what the names of its own chains begin with."""

    diversion: Diversion
    own: str
    select: list[Alternatives]
    unless: list[Alternatives] | None
    to: str

    @property
    def levels(self) -> int:
        """Of its own chains, one leading to the next."""
        levels = len(self.select) + len(self.unless or ())
        return 0 if levels == 1 else levels + (self.to == LEAVE)


def policies(rules: Ruleset, chain: str, place: Place, way: Way, end: Sequence[str] = ()) -> None:
    """The policies in their order, each with the way of what it matches. end: the rules behind them.

    A policy without a way has no rule here; one that gets no new flows asks for its class in conntrack.
    """
    found = list(_policies(rules, place, way))
    boxes = [box(each.diversion, rules.family, place.egress, rules.tags) for each in found]

    def ask(axis: str, numbers: Spans) -> str:
        if axis in ("tag", "class"):
            return rules.numbered(axis, *numbers[0])
        return question(axis, numbers, place)

    def add(at: str, number: int, left: Box) -> str:
        return _add(rules, at, _with_tags(rules, place, found[number], left))

    write(
        rules, chain, boxes, ask, add, end,
        levels=max((each.levels for each in found), default=0),
        returns=all(each.to != LEAVE for each in found),
        common=(("tag", 0), *(("tag", tag) for tag, keys in rules.tags.sets.items() if not keys)),
    )  # fmt: skip


def _policies(rules: Ruleset, place: Place, way: Way) -> Iterator[_Policy]:
    for number, diversion in of_protocol(rules.plan, place.protocol):
        select = stages(diversion.select, place) if diversion.select else None
        to = way(rules, diversion, place)
        if select is None or to is None:
            continue
        cautious = replace(place, tag_match=rules.tagged_maybe_with_keys)
        unless = stages(diversion.unless, cautious) if diversion.unless else None
        own = f"{'o' if place.egress else 'i'}{place.protocol[0]}{number}"
        yield _Policy(diversion, own, select, unless, to)


def _with_tags(rules: Ruleset, place: Place, policy: _Policy, left: Box) -> _Policy:
    """The policy, where only some of its tags come by; where it has chains of its own, as it is."""
    numbers = dict(left).get("tag")
    if numbers is None or policy.levels:
        return policy
    tags = [tag for first, last in numbers for tag in range(first, last + 1)]
    here = replace(place, tag_match=lambda _: rules.tagged(tags))
    assert policy.diversion.select is not None
    return replace(policy, select=stages(policy.diversion.select, here) or [])


def _add(rules: Ruleset, chain: str, policy: _Policy) -> str:
    """A policy's rules; the chain in which to go on.

    One of more than one stage has chains of its own, entered by a jump: their end goes back to the next
    policy. One whose packets leave is entered by goto, and the next policies stand in a chain behind it.
    """
    kept, own = _kept(rules, policy.diversion), policy.own
    if len(policy.select) == 1 and policy.unless is None:
        for match in policy.select[0]:
            rules.add(chain, match, kept, policy.to)
        return chain
    if policy.to != LEAVE:
        rules.add(chain, kept, f"-j {rules.name(own)}")
        if rules.name(own) not in rules.chains:
            _stage_chains(rules, own, policy, "")
        return chain
    own += chain.partition(".")[2]  # for each place where it stands, since what follows is another
    behind = f"{own}n"
    rules.add(chain, kept, f"-g {rules.name(own)}")
    rules.begin(behind)
    _stage_chains(rules, own, policy, f"-g {rules.name(behind)}")
    return behind


def _kept(rules: Ruleset, diversion: Diversion) -> str:
    """A match for flows that have the class, where no others get it."""
    if diversion.flows == "any":
        return ""
    return rules.numbered("class", diversion.class_id, diversion.class_id)


def _stage_chains(rules: Ruleset, own: str, policy: _Policy, fails: str) -> None:
    selection = own if policy.unless is None else f"{own}s"
    if policy.unless is not None:
        _conjunction(rules, own, policy.unless, fails or "-j RETURN", f"-g {rules.name(selection)}")
    _conjunction(rules, selection, policy.select, policy.to, fails)


def _conjunction(rules: Ruleset, start: str, several: list[Alternatives], holds: str, fails: str) -> None:
    """Chains from start on that do `holds` if all of several stages hold, else `fails`; if empty, go back."""
    for place, alternatives in enumerate(several):
        chain = f"{start}.{place}" if place else start
        last = place == len(several) - 1
        for match in alternatives:
            rules.add(chain, match, holds if last else f"-g {rules.name(f'{start}.{place + 1}')}")
        if fails:
            rules.add(chain, fails)


def by_number(
    rules: Ruleset, chain: str, axis: str, ways: Mapping[int, str], end: Sequence[str] = ()
) -> None:
    """A way for each number that a packet may have on an axis ("tag" or "class"). end: the rules behind."""
    write_numbers(rules, chain, ways, lambda first, last: rules.numbered(axis, first, last), end)


def known_tags(rules: Ruleset, chain: str) -> None:
    """A tag that no rule knows tells nothing: as if there were none."""
    by_number(rules, chain, "tag", dict.fromkeys(rules.tags.sets, LEAVE), [clear(rules)])


def only_known_tags(rules: Ruleset, chain: str, protocol: str) -> None:
    """On egress, where a policy excepts programs: it leaves alone of which it does not know what they are."""
    excepted = (d.unless for _, d in of_protocol(rules.plan, protocol) if d.select and d.unless)
    if any(unless.program for unless in excepted):
        if rules.name("tag") not in rules.chains:
            known_tags(rules, "tag")
        rules.add(chain, f"-j {rules.name('tag')}")
