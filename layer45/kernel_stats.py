"""What chains in the kernel have counted, beside what the engine has."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from layer45.loader import ChainPlan
from layer45.policy_states import path_of
from layer45.ratio import Ratios, with_ratios
from layer45.rules.kernel_chain import (
    BEGUN_SENT,
    EGRESS_BYTES,
    EGRESS_PACKETS,
    INGRESS_BYTES,
    INGRESS_PACKETS,
    OWN_COUNTERS,
    NoKernel,
)
from layer45.rules.kernel_chains import Counted

KERNEL_HELP = {
    "kernel.received": "packets for which the kernel did what a chain does; all others went to the queue",
    "kernel.received_bytes": "their IP lengths, in bytes",
    "kernel.passed": "of the packets, those let go, marked or as they were",
    "kernel.dropped": "of the packets, those dropped by a module",
}
_NAMES = {
    "egress_packets": (EGRESS_PACKETS,),
    "ingress_packets": (INGRESS_PACKETS,),
    "egress_bytes": (EGRESS_BYTES,),
    "ingress_bytes": (INGRESS_BYTES,),
    "begun_sent": (BEGUN_SENT,),
    "packets": (EGRESS_PACKETS, INGRESS_PACKETS),
    "bytes": (EGRESS_BYTES, INGRESS_BYTES),
}


def with_kernel(
    stats: Mapping[str, Any], chains: Iterable[ChainPlan], counted: Counted, no_kernel: NoKernel
) -> dict[str, Any]:
    """Engine.stats, with what the kernel has counted of each policy, and in all; and each policy's path.

    no_kernel: why chains do not run there.
    """
    policies = dict(stats.get("policies", {}))
    for chain in chains:
        if chain.name in policies:
            values = counted.of_class.get(chain.class_id, [])
            added = _added(policies[chain.name], values, chain.ratios)
            policies[chain.name] = {**added, "path": path_of(chain, no_kernel)}
    return {**stats, "policies": policies, "kernel": counted.total}


def _added(policy: dict[str, Any], values: list[int], ratios: Mapping[str, Ratios]) -> dict[str, Any]:
    if not values:
        return policy
    own = {name: policy[name] + sum(values[at] for at in places) for name, places in _NAMES.items()}
    steps = iter(values[OWN_COUNTERS:])
    instances = [{**each, "counters": _counters(each["counters"], steps)} for each in policy["instances"]]
    return {**policy, **own, "instances": with_ratios(instances, ratios)}


def _counters(counters: Mapping[str, int], steps: Iterator[int]) -> dict[str, int]:
    """An instance's, of which the next of the steps' are."""
    return {name: value + next(steps) for name, value in counters.items()}
