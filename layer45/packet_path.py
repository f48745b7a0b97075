"""Which way the packets of a policy take.

queue:   diverted to the engine, each with a verdict
copies:  they go on at once, and the engine gets copies of their first bytes (netfilter's NFLOG), many with
         one message; where every module of the chain only looks
"""

from collections.abc import Sequence
from typing import Literal

from layer45.chain_properties import InstancePlan
from layer45.policy import Policy

PacketPath = Literal["queue", "copies"]


def packet_path(policy: Policy, instances: Sequence[InstancePlan]) -> PacketPath:
    """The shortest way that does the same for all of its packets; the queue, where the policy asks for it."""
    return "copies" if policy.path == "auto" and _copies_will_do(policy, instances) else "queue"


def _copies_will_do(policy: Policy, instances: Sequence[InstancePlan]) -> bool:
    """Copies are of whole super-packets, and a copy that is lost cannot hold its packet back."""
    manifests = [each.module.manifest for each in instances]
    looking = bool(manifests) and all(each.looks_only and each.gso for each in manifests)
    return looking and policy.on_failure == "open"
