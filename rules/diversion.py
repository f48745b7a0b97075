"""What the rules are asked for: which sockets' packets go to which queues, without a word on how.

Plain values, made by the loader and read by every backend.
"""

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from layer45.rules.kernel_chain import KernelChain, NoKernel

Network = IPv4Network | IPv6Network
PortRange = tuple[int, int]  # first, last; inclusive
Flows = Literal["any", "kept", "ended"]


@dataclass(frozen=True)
class Selector:
    """A socket context to match. Empty matches any; several values: any of them; fields together: all."""

    protocol: tuple[str, ...] = ()  # "udp", "tcp"
    local: tuple[Network, ...] = ()
    remote: tuple[Network, ...] = ()
    local_port: tuple[PortRange, ...] = ()
    remote_port: tuple[PortRange, ...] = ()
    user: tuple[int, ...] = ()  # uids
    group: tuple[int, ...] = ()  # gids
    cgroup: tuple[str, ...] = ()  # paths below the cgroup v2 mount, no leading slash
    program: tuple[str, ...] = ()  # names as the kernel keeps them, or absolute paths of executables

    @property
    def owned(self) -> bool:
        """Whether the socket's owner matters, and not its addresses alone."""
        return bool(self.user or self.group or self.cgroup or self.program)


@dataclass(frozen=True)
class QueueGroup:
    """Queues first .. first + workers - 1, one a worker; they share copy range, GSO flag and on_failure.

    bypass: packets pass uncustomized while nobody listens (an "open" policy); else they are dropped. copies:
    the numbers are those of NFLOG groups, which get copies, and the packets go on.
    """

    first: int
    workers: int
    bypass: bool
    copies: bool = False


@dataclass(frozen=True)
class Diversion:
    """One policy's packets. The first diversion that selects a socket has it.

    select: None selects no new connection; those that have the class keep it. renumbers: the chain makes TCP
    segments longer, so that conntrack must see them behind it, and the engine tells the map which connections
    it knows. flows: "any" that it selects; "kept": of those, only the ones that have the class already;
    "ended": the same, and their packets are dropped. lets_go: names the chain where it may be done with a
    flow, whose class and exempt bit in conntrack's mark then say so; else empty. kernel: the chain, if the
    kernel can run it; the queues then get what its programs leave to the engine.
    """

    policy: str
    class_id: int
    select: Selector | None
    unless: Selector | None
    queues: QueueGroup
    renumbers: bool = False
    flows: Flows = "any"
    lets_go: str = ""
    kernel: KernelChain | None = None

    def concerns(self, protocol: str) -> bool:
        """Whether packets of this protocol can be diverted."""
        return self.select is None or not self.select.protocol or protocol in self.select.protocol


@dataclass(frozen=True)
class MarkLayout:
    """How our number stands in a packet or conntrack mark: bits spread over class_mask, lowest first."""

    class_mask: int
    exempt_bit: int

    @property
    def capacity(self) -> int:
        """The largest class number; 0 is no class."""
        return (1 << self.class_mask.bit_count()) - 1

    def gathered(self, mark: int) -> int:
        """The number in a mark: spread, backwards."""
        bits = [place for place in range(32) if self.class_mask >> place & 1]
        return sum((mark >> place & 1) << order for order, place in enumerate(bits))

    def spread(self, class_id: int) -> int:
        """The mark value of a class."""
        value = 0
        bits = (1 << place for place in range(32) if self.class_mask >> place & 1)
        for order, bit in enumerate(bits):
            if class_id >> order & 1:
                value |= bit
        return value


@dataclass(frozen=True)
class RulePlan:
    """All one daemon wants from netfilter. owner tells its chains or table from another daemon's.

    connections: how many the map of known ones has room for. ending: the daemon is about to go, and has a
    map. Customized connections are dropped then, in both directions: nobody is there any more to undo what
    was done to them. renumbers: some chain does, though no diversion may lead to it yet; its engine has the
    map from the start. forgets: connections lose classes that no diversion has; not at the daemon's end, for
    the next one knows what they mean.
    """

    owner: str
    marks: MarkLayout
    diversions: tuple[Diversion, ...] = field(default=())  # highest priority first
    connections: int = 65536
    ending: bool = False
    renumbers: bool = False
    forgets: bool = True

    @property
    def renumbering(self) -> tuple[int, ...]:
        """The classes whose TCP connections are in the map."""
        found = (each.class_id for each in self.diversions if each.renumbers and each.concerns("tcp"))
        return tuple(dict.fromkeys(found))

    def by_program(self, protocol: str) -> bool:
        """Whether some policy asks for a program, so that the socket's tag decides on egress, too."""
        return any(selector.program for selector in self.selectors(protocol))

    def selectors(self, protocol: str = "") -> list[Selector]:
        """What policies ask for, and what they except; protocol: of those that concern it."""
        chosen = (d for d in self.diversions if d.select and (not protocol or d.concerns(protocol)))
        return [selector for d in chosen for selector in (d.select, d.unless) if selector]

    def stays(self, mark: int, before: "RulePlan | None") -> bool:
        """Whether a connection that has left, by its mark, stays in the kernel: its chain is as before."""
        number = self.marks.gathered(mark)
        chain = self.letting_go.get(number)
        return before is not None and chain is not None and before.letting_go.get(number) == chain

    @property
    def letting_go(self) -> dict[int, str]:
        """Class → chain, of those that may be done with a flow."""
        return {each.class_id: each.lets_go for each in self.diversions if each.lets_go}

    @property
    def in_kernel(self) -> bool:
        """Whether rules ask programs that are chains."""
        return any(each.kernel for each in self.diversions)

    @property
    def kernel_drops(self) -> bool:
        """Whether one of them drops packets."""
        return any(each.kernel and each.kernel.drops for each in self.diversions)

    @property
    def kernel_marks(self) -> bool:
        """Whether one of them writes DSCPs."""
        return any(each.kernel and each.kernel.dscps for each in self.diversions)

    def but(self, no_kernel: NoKernel) -> "RulePlan":
        """The same, with the packets of chains that cannot run in the kernel through the queues."""
        kept = (replace(d, kernel=None) if no_kernel.reason(d.kernel) else d for d in self.diversions)
        return replace(self, diversions=tuple(kept))

    @property
    def asks_map(self) -> bool:
        """Whether rules ask the map of known connections, or soon may."""
        return self.ending or self.renumbers or bool(self.renumbering)
