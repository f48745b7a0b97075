"""Which way the packets of a policy take.

queue:   diverted to the engine, each with a verdict
copies:  they go on at once, and the engine gets copies of their first bytes (netfilter's NFLOG), many with
         one message; where every module of the chain only looks
kernel:  the rules ask programs that are the chain (rules/kernel_program.py); only what is out of the
         ordinary goes one of the other ways

The kernel has chains that only choose, count, drop and mark, as their modules declare (kernel_table.py). It
does so as the engine does, packet by packet. It must not send some segments of a TCP connection through the
queue, where the others overtake them: so, with TCP, what is chosen must not depend on how long a payload is
or how it begins, for super-packets have many; unless the engine, too, gets these whole. Where the host cannot
do it, rule_switch.py has the reason, and all goes through the queue.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Literal, cast

from layer45.chain_properties import ChainProperties, InstancePlan
from layer45.kernel_table import KernelPart
from layer45.policy import Policy
from layer45.rules.kernel_chain import LONGEST_PAYLOAD, MOST_STEPS, Direction, KernelChain, Step

PacketPath = Literal["queue", "copies", "kernel"]


def packet_path(policy: Policy, instances: Sequence[InstancePlan]) -> PacketPath:
    """The shortest way outside of the kernel; the queue, where the policy asks for it."""
    return "copies" if policy.path == "auto" and _copies_will_do(policy, instances) else "queue"


def _copies_will_do(policy: Policy, instances: Sequence[InstancePlan]) -> bool:
    """Copies are of whole super-packets, and a copy that is lost cannot hold its packet back."""
    manifests = [each.module.manifest for each in instances]
    looking = bool(manifests) and all(each.looks_only and each.gso for each in manifests)
    return looking and policy.on_failure == "open"


def kernel_chain(
    policy: Policy,
    instances: Sequence[InstancePlan],
    protocols: tuple[str, ...],
    properties: ChainProperties,
    text: str,
) -> KernelChain | None:
    """The chain, as the kernel can run it by itself, where that is the shortest way that does the same.

    text: what the engine knows it by.
    """
    if policy.path == "queue" or len(instances) > MOST_STEPS or not all(map(_able, instances)):
        return None
    counters = sum(len(each.module.manifest.counters) for each in instances)
    chain = KernelChain(text, protocols, tuple(_steps(instances)), counters, properties.gso)
    return chain if chain.ordered else None


def _able(instance: InstancePlan) -> bool:
    part = instance.module.manifest.kernel
    return part is not None and part.holds(instance.values)


def _steps(instances: Sequence[InstancePlan]) -> Iterator[Step]:
    """Each with its place among the counters of all, which are those of the manifests one behind another."""
    firsts = accumulate((len(each.module.manifest.counters) for each in instances), initial=0)
    for instance, first in zip(instances, firsts, strict=False):
        part, values = cast(KernelPart, instance.module.manifest.kernel), instance.values
        names = tuple(instance.module.manifest.counters)
        yield Step(
            directions=tuple(cast(Direction, each) for each in sorted(instance.directions)),
            lengths=cast(tuple[int, int], values[part.length]) if part.length else (0, LONGEST_PAYLOAD),
            prefix=cast(bytes, values[part.prefix]) if part.prefix else b"",
            invert=bool(values[part.invert]) if part.invert else False,
            drops=part.verdict == "drop",
            counters=tuple(first + names.index(name) for name in part.counts),
            dscp=cast(int, values[part.dscp]) if part.dscp else None,
            changed_counters=tuple(first + names.index(name) for name in part.counts_changed),
        )
