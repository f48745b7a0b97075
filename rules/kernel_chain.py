"""A chain that the kernel can run by itself, as plain values: what is chosen, dropped, marked and counted."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["egress", "ingress"]

LONGEST_PAYLOAD = 65535  # as the last of lengths it is no limit: a super-packet may have more
NOBODYS_QUEUE = 65535  # where the kernel sends what these chains drop; see iptables_ruleset.py
MOST_STEPS = 31  # one bit each
# What a chain counts by itself, in front of its steps' counters.
EGRESS_PACKETS, INGRESS_PACKETS, EGRESS_BYTES, INGRESS_BYTES, BEGUN_SENT, DROPPED = range(6)
OWN_COUNTERS = 6


@dataclass(frozen=True)
class Step:
    """An instance: it chooses packets, counts them, and drops them, gives them a DSCP, or does neither.

    A packet is chosen if its payload has one of the lengths, and begins with the prefix; with invert, if not.
    lengths: first and last. dscp: which one they get; None: they keep theirs. counters: places among those of
    all steps. changed_counters: places of those that count what had another DSCP.
    """

    directions: Collection[Direction]
    lengths: tuple[int, int] = (0, LONGEST_PAYLOAD)
    prefix: bytes = b""
    invert: bool = False
    drops: bool = False
    counters: tuple[int, ...] = ()
    dscp: int | None = None
    changed_counters: tuple[int, ...] = ()

    @property
    def same_for_data(self) -> bool:
        """Whether it does the same with all packets that have a payload."""
        first, last = self.lengths
        return not self.prefix and (last == 0 or (first <= 1 and last == LONGEST_PAYLOAD))


@dataclass(frozen=True)
class NoKernel:
    """Why chains that the kernel could run go through the queue. all: why any; marking: those that mark."""

    all: str = ""
    marking: str = ""

    def reason(self, chain: "KernelChain | None") -> str:
        """Why this one does; empty: it does not."""
        if chain is None:
            return ""
        return self.all or (self.marking if chain.dscps else "")

    def refused(self, marks: bool, reason: str) -> "NoKernel":
        """The same, when the kernel has not taken what was left. marks: some of that marked."""
        return replace(self, marking=reason) if marks else replace(self, all=reason)


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
    def dscps(self) -> tuple[int, ...]:
        """Those that some step gives."""
        return tuple(sorted({step.dscp for step in self.steps if step.dscp is not None}))

    @property
    def cuts(self) -> bool:
        """Whether it is known of a super-packet what becomes of each packet in it."""
        return all(step.same_for_data for step in self.steps)

    @property
    def ordered(self) -> bool:
        """Whether no packet of a TCP connection needs the queue, where others would overtake it."""
        return "tcp" not in self.protocols or self.super_packets or self.cuts
