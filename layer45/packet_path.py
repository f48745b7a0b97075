"""Which way the packets of a policy take.

queue:   diverted to the engine, each with a verdict
"""

from collections.abc import Sequence
from typing import Literal

from layer45.chain_properties import InstancePlan
from layer45.policy import Policy

PacketPath = Literal["queue"]


def packet_path(policy: Policy, instances: Sequence[InstancePlan]) -> PacketPath:
    """The shortest way that does the same for all of its packets; the queue, where the policy asks for it."""
    return "queue"
