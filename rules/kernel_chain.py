"""A chain that the kernel can run by itself, as plain values: what is chosen, dropped and counted."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Direction = Literal["egress", "ingress"]

LONGEST_PAYLOAD = 65535
NOBODYS_QUEUE = 65535  # where the kernel sends what these chains drop; see iptables_ruleset.py
MOST_STEPS = 31  # one bit each
# What a chain counts by itself, in front of its steps' counters.
EGRESS_PACKETS, INGRESS_PACKETS, EGRESS_BYTES, INGRESS_BYTES, BEGUN_SENT, DROPPED = range(6)
OWN_COUNTERS = 6


@dataclass(frozen=True)
class Step:
    """An instance: it chooses packets, counts them, and drops them or not.

    A packet is chosen if its payload has one of the lengths, and begins with the prefix; with invert, if not.
    lengths: first and last. counters: places among those of all steps.
    """

    directions: Collection[Direction]
    lengths: tuple[int, int] = (0, LONGEST_PAYLOAD)
    prefix: bytes = b""
    invert: bool = False
    drops: bool = False
    counters: tuple[int, ...] = ()

    @property
    def same_for_data(self) -> bool:
        """Whether it does the same with all packets that have a payload."""
        first, last = self.lengths
        return not self.prefix and (last == 0 or (first <= 1 and last == LONGEST_PAYLOAD))


@dataclass(frozen=True)
class KernelChain:
    """The chain of one class.

    text: equal texts mean the same chain, whose counters go on. steps: in egress order. counters: how many
    all steps have. super_packets: one is a packet like any other, as the chain's queue hands it over whole.
    """

    text: str
    protocols: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    counters: int = 0
    super_packets: bool = False

    @property
    def drops(self) -> bool:
        """Whether some step does."""
        return any(step.drops for step in self.steps)

    @property
    def cuts(self) -> bool:
        """Whether it is known of a super-packet what becomes of each packet in it."""
        return all(step.same_for_data for step in self.steps)

    @property
    def ordered(self) -> bool:
        """Whether no packet of a TCP connection needs the queue, where others would overtake it."""
        return "tcp" not in self.protocols or self.super_packets or self.cuts
