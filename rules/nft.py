"""A plan as one nft table of our own; see iptables.py for the packet's way, which is the same.

Native nft needs less: several values are a set, `socket mark` reads the receiving socket's tag without
touching the packet's mark, `symhash` spreads flows. The table has hooks of its own, right behind mangle.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from layer45.rules import cgroups
from layer45.rules.command import run
from layer45.rules.diversion import Diversion, PortRange, QueueGroup, RulePlan, Selector
from layer45.rules.errors import RulesError
from layer45.rules.names import comment, table_name
from layer45.rules.owners import OwnerTags, owner_tags

PRIORITY = "mangle + 1"
CGROUP_BASE = Path("/sys/fs/cgroup")  # nft resolves cgroup paths from here


def install(plan: RulePlan) -> None:
    """Make this namespace's rules of plan.owner equal to the plan. Raises RulesError and changes nothing."""
    of_missing = cgroups.of_missing(plan, in_cgroup)
    lines = [line for line in render_text(plan).splitlines() if not of_missing(line)]
    run(["nft", "-f", "-"], _emptied(plan.owner) + "\n".join([*lines, ""]))


def _emptied(owner: str) -> str:
    """Commands that leave the table with its two hooks alone.

    The hooks stay: when a base chain goes, the kernel drops all packets that wait in the namespace's queues.
    """
    name = table_name(owner)
    chains = [entry["chain"] for entry in _listed("chains") if entry.get("chain", {}).get("table") == name]
    stale = [chain["name"] for chain in chains if "hook" not in chain]
    lines = [f"table inet {name}", f"flush table inet {name}"]
    return "\n".join([*lines, *(f"delete chain inet {name} {chain}" for chain in stale), ""])


def remove(owner: str) -> None:
    """Take the owner's table out; nothing to do is no error."""
    if installed(owner):
        run(["nft", "delete", "table", "inet", table_name(owner)])


def installed(owner: str) -> bool:
    """Whether the owner's table is in this namespace."""
    return any(entry.get("table", {}).get("name") == table_name(owner) for entry in _listed("tables"))


def _listed(what: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(run(["nft", "--json", "list", what, "inet"]))["nftables"]
    return entries


def render_text(plan: RulePlan) -> str:
    """The table, as `nft -f` takes it. Raises RulesError for what nft cannot express."""
    for diversion in plan.diversions:
        if diversion.class_id in plan.renumbering:
            raise RulesError(
                f"policy {diversion.policy}: the nft backend cannot divert TCP connections whose chain makes "
                'them longer, as nft has no BPF match; expected backend = "iptables" in layer45.toml'
            )
    tags = owner_tags(plan)
    chains = {"out": list(_egress(plan)), "in": list(_ingress(plan))}
    for diversion in plan.diversions:
        chains[f"hit_{diversion.class_id}"] = list(_hit(plan, diversion))
    chains["known"] = list(_known(plan))
    if plan.letting_go or _by_program(plan):
        chains["cleared"] = [_clear("meta", plan.marks.class_mask)]
    if _by_program(plan):
        chains["known_cleared"] = [*chains["cleared"], "goto known"]
    for number, diversion in enumerate(plan.diversions):
        for side, egress in (("out", True), ("in", False)):
            chains[f"{side}_{number}"] = list(_policy(plan, tags, diversion, egress))
    body = "".join(_chain(name, rules) for name, rules in chains.items())
    return f"table inet {table_name(plan.owner)} {{\n{body}}}\n"


def _chain(name: str, rules: Iterable[str]) -> str:
    return "".join([f"\tchain {name} {{\n", *(f"\t\t{rule}\n" for rule in rules), "\t}\n"])


def _clear(kind: str, mask: int) -> str:
    """Zero our bits in a mark where any is set."""
    return f"{kind} mark & {mask:#x} != 0 {kind} mark set {kind} mark & {~mask & 0xFFFFFFFF:#x}"


def _forget(plan: RulePlan) -> str:
    """Where nothing is forgotten, conntrack is asked all the same: see iptables.py."""
    if not plan.forgets:
        return f"ct mark & {plan.marks.class_mask:#x} != 0 return"
    return _clear("ct", plan.marks.class_mask)


def _by_program(plan: RulePlan) -> bool:
    return plan.by_program("udp") or plan.by_program("tcp")


def _egress(plan: RulePlan) -> Iterator[str]:
    """Where a policy asks for a program, a packet has its socket's tag until the policies have seen it."""
    marks, clear = plan.marks, _clear("meta", plan.marks.class_mask)
    by_program = _by_program(plan)
    known, leave = ("goto known_cleared", "goto cleared") if by_program else ("goto known", "return")
    yield f"type filter hook output priority {PRIORITY}; policy accept;"
    yield f"meta mark & {marks.exempt_bit:#x} != 0 return"
    if not by_program:
        yield clear
    yield f"meta l4proto != {{ tcp, udp }} {leave}"
    yield f"tcp flags & syn == 0 {known}"
    yield f"tcp flags & (syn | ack) == (syn | ack) ct mark & {marks.class_mask:#x} != 0 {known}"
    yield from _policies(plan, "out", "meta skuid >= 0 ")  # only packets with a socket have one
    yield "meta skuid >= 0 " + _forget(plan)
    yield f"meta skuid >= 0 {leave}"
    yield known


def _ingress(plan: RulePlan) -> Iterator[str]:
    marks = plan.marks
    yield f"type filter hook input priority {PRIORITY}; policy accept;"
    yield _clear("meta", marks.class_mask | marks.exempt_bit)
    yield "meta l4proto != { tcp, udp } return"
    yield "tcp flags & syn == 0 goto known"
    yield "ct direction reply goto known"
    if plan.letting_go:
        yield f"ct mark & {marks.exempt_bit:#x} != 0 goto known"
    yield f"ct mark & {marks.class_mask:#x} != 0 jump known"
    yield from _policies(plan, "in", "")


def _policies(plan: RulePlan, side: str, condition: str) -> Iterator[str]:
    for number, diversion in enumerate(plan.diversions):
        yield f'{condition}jump {side}_{number} comment "{comment(diversion.policy)}"'


def _known(plan: RulePlan) -> Iterator[str]:
    yield f"ct mark & {plan.marks.class_mask:#x} == 0 return"
    yield from dict.fromkeys(_known_class(plan, diversion) for diversion in plan.diversions)
    yield _forget(plan)


def _known_class(plan: RulePlan, diversion: Diversion) -> str:
    protocol = _protocol(diversion.select) if diversion.select else ""
    return f"{protocol}{_has_class(plan, diversion)}goto hit_{diversion.class_id}"


def _has_class(plan: RulePlan, diversion: Diversion) -> str:
    """A match for flows that have the class."""
    return f"ct mark & {plan.marks.class_mask:#x} == {plan.marks.spread(diversion.class_id):#x} "


def _hit(plan: RulePlan, diversion: Diversion) -> Iterator[str]:
    if diversion.flows == "ended":
        yield "drop"
        return
    others, value = ~plan.marks.class_mask & 0xFFFFFFFF, plan.marks.spread(diversion.class_id)
    exempt = plan.marks.exempt_bit if plan.letting_go else 0
    if diversion.lets_go:
        yield f"ct mark & {plan.marks.class_mask | exempt:#x} == {value | exempt:#x} goto cleared"
    yield f"meta mark set meta mark & {others:#x} | {value:#x}"
    new = f"ct mark & {plan.marks.class_mask:#x} != {value:#x} " if exempt else ""
    yield f"{new}ct mark set ct mark & {others & ~exempt:#x} | {value:#x}"
    if diversion.queues.copies:
        yield from _copies(diversion.queues)
    else:
        yield queue_statement(diversion.queues)


def _copies(queues: QueueGroup) -> Iterator[str]:
    """A copy to the worker that has the flow; the packet goes on behind our hook, as from a queue."""
    for worker in range(queues.workers - 1):
        yield f"symhash mod {queues.workers} == {worker} log group {queues.first + worker} accept"
    yield f"log group {queues.first + queues.workers - 1} accept"


def queue_statement(queues: QueueGroup) -> str:
    """To the worker that has the flow: symhash is the same for both directions."""
    flags = "flags bypass " if queues.bypass else ""
    if queues.workers == 1:
        return f"queue {flags}to {queues.first}"
    return f"queue {flags}to symhash mod {queues.workers} offset {queues.first}"


def _policy(plan: RulePlan, tags: OwnerTags, diversion: Diversion, egress: bool) -> Iterator[str]:
    select, unless = diversion.select, diversion.unless
    if select is None or (diversion.flows != "any" and not egress):
        return
    selection = list(_matches(select, egress, _owners(plan, tags, select, egress, _tagged)))
    if selection and unless is not None:
        for match in _matches(unless, egress, _owners(plan, tags, unless, egress, _maybe)):
            yield f"{match}return"
    kept = "" if diversion.flows == "any" else _has_class(plan, diversion)
    for match in selection:
        yield f"{match}{kept}goto hit_{diversion.class_id}"


def _matches(selector: Selector, egress: bool, owners: Iterable[str]) -> Iterator[str]:
    """Each is a rule's matches with a space behind, or nothing for "always"; any of them is enough."""
    fixed = _protocol(selector) + _ports(selector, egress)
    ways = list(owners)
    for addresses in _addresses(selector, egress):
        for owner in ways:
            yield f"{addresses}{fixed}{owner}"


def _protocol(selector: Selector) -> str:
    return f"meta l4proto {selector.protocol[0]} " if len(set(selector.protocol)) == 1 else ""


def _addresses(selector: Selector, egress: bool) -> Iterator[str]:
    local, remote = ("saddr", "daddr") if egress else ("daddr", "saddr")
    if not selector.local and not selector.remote:
        yield ""
        return
    for family, version in (("ip", True), ("ip6", False)):
        keys = [(local, selector.local), (remote, selector.remote)]
        mine = [(f, [n for n in nets if isinstance(n, IPv4Network) == version]) for f, nets in keys if nets]
        if all(networks for _, networks in mine):
            yield "".join(f"{family} {field} {_set(map(str, nets))} " for field, nets in mine)


def _ports(selector: Selector, egress: bool) -> str:
    local, remote = ("sport", "dport") if egress else ("dport", "sport")
    keys = ((local, selector.local_port), (remote, selector.remote_port))
    return "".join(f"th {field} {_set(map(_range, ranges))} " for field, ranges in keys if ranges)


def _range(ports: PortRange) -> str:
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


Tagged = Callable[[RulePlan, OwnerTags, Selector, str], Iterator[str]]


def _owners(
    plan: RulePlan, tags: OwnerTags, selector: Selector, egress: bool, tagged: Tagged
) -> Iterator[str]:
    """A packet that leaves tells its owner, but for the program; one that comes, only its socket's tag."""
    if egress and not selector.program:
        return _owner(selector)
    return tagged(plan, tags, selector, "meta" if egress else "socket")


def _owner(selector: Selector) -> Iterator[str]:
    """The packet's own socket's."""
    keys = (("skuid", selector.user), ("skgid", selector.group))
    ids = "".join(f"meta {field} {_set(map(str, values))} " for field, values in keys if values)
    for cgroup in [in_cgroup(path) for path in selector.cgroup] or [""]:
        yield ids + cgroup


def _tagged(plan: RulePlan, tags: OwnerTags, selector: Selector, of: str) -> Iterator[str]:
    """The mark of `of` has a tag that says the owner keys hold."""
    if not selector.owned:
        yield ""
    elif numbers := tags.having(selector):
        values = _set(f"{plan.marks.spread(number):#x}" for number in numbers)
        yield f"{of} mark & {plan.marks.class_mask:#x} {values} "


def _maybe(plan: RulePlan, tags: OwnerTags, selector: Selector, of: str) -> Iterator[str]:
    """It has no tag that says they do not hold."""
    if not selector.owned or not tags.lacking(selector):
        yield ""
    else:
        values = _set(f"{plan.marks.spread(number):#x}" for number in tags.lacking(selector))
        yield f"{of} mark & {plan.marks.class_mask:#x} != {values} "


def in_cgroup(path: str) -> str:
    """Matches packets of sockets that were made in the cgroup or below it."""
    below = str((cgroups.mount_point() / path).relative_to(CGROUP_BASE))
    return f'socket cgroupv2 level {cgroups.level(path)} "{below}" '


def _set(values: Iterable[str]) -> str:
    words: Sequence[str] = list(dict.fromkeys(values))
    return words[0] if len(words) == 1 else f"{{ {', '.join(words)} }}"
