"""The raw table's part of a plan, for one family: egress of policies that renumber TCP connections.

A chain that makes segments longer must do so before conntrack on egress, as it does behind conntrack on
ingress, so that conntrack sees what is on the wire, both ways. Here, nothing is known of a connection but
what the map says which the engine fills (known.py); and orphaned sockets, TIME_WAIT and half-open connections
have no owner to ask for.

    OUTPUT → raw:  not TCP: leave
             raw-tcp:  E set: leave
                       a connection in the map → known-map. SYN without ACK → raw-syn
             raw-syn:  all TCP policies, first match: a renumbering one → stream<class>, any other: leave
             known-map, stream<class>:  as in iptables.py, and E into the packet mark: mangle leaves it alone

A SYN of a connection in the map goes to the engine too, whatever its owner: an old connection of these ports
is over then, and the engine must see that. Without a renumbering policy, there is nothing in this table.
"""

from layer45.rules.diversion import Diversion, RulePlan
from layer45.rules.iptables_map import known_map
from layer45.rules.iptables_match import Place
from layer45.rules.iptables_policies import only_known_tags, policies
from layer45.rules.iptables_ruleset import LEAVE, Ruleset, stream_hit

SYN = "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN"


def render(plan: RulePlan, family: int) -> dict[str, list[str]]:
    """Chain name → its rules' words; no chain where no rule would ask the map."""
    rules = Ruleset(plan, family, "out")
    if plan.renumbering:
        _divert(rules)
    elif plan.ending:
        rules.add("raw", "-p tcp", rules.asks("customized"), "-j DROP")
    return rules.chains


def _divert(rules: Ruleset) -> None:
    exempt = rules.plan.marks.exempt_bit
    rules.add("raw", f"-p tcp -g {rules.name('raw-tcp')}")
    rules.add("raw-tcp", f"-m mark --mark {exempt:#x}/{exempt:#x} -j RETURN")
    rules.add("raw-tcp", rules.asks("known"), f"-g {rules.name('known-map')}")
    rules.add("raw-tcp", f"{SYN} -g {rules.name('raw-syn')}")
    known_map(rules, "known-map")
    rules.begin("raw-syn")
    rules.add("raw-syn", "-m owner ! --socket-exists -j RETURN")
    only_known_tags(rules, "raw-syn", "tcp")
    place = Place(rules.family, True, "tcp", rules.tagged_with_keys)
    policies(rules, "raw-syn", place, _way)
    for diversion in rules.plan.diversions:
        if diversion.renumbers and diversion.concerns("tcp"):
            stream_hit(rules, diversion)


def _way(rules: Ruleset, diversion: Diversion, place: Place) -> str | None:
    """A policy that no new connection gets has those that the map knows, and they are gone by then."""
    if diversion.flows != "any":
        return None
    return f"-g {rules.name(f'stream{diversion.class_id}')}" if diversion.renumbers else LEAVE
