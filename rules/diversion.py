"""What the rules are asked for: which sockets' packets go to which queues, without a word on how.

Plain values, made by the loader and read by every backend.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network
PortRange = tuple[int, int]  # first, last; inclusive


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

    @property
    def owned(self) -> bool:
        """Whether the socket's owner matters, and not its addresses alone."""
        return bool(self.user or self.group or self.cgroup)


@dataclass(frozen=True)
class QueueGroup:
    """Queues first .. first + workers - 1, one a worker; they share copy range, GSO flag and on_failure.

    bypass: packets pass uncustomized while nobody listens (an "open" policy); else they are dropped.
    """

    first: int
    workers: int
    bypass: bool


@dataclass(frozen=True)
class Diversion:
    """One policy's packets. The first diversion that selects a socket has it."""

    policy: str
    class_id: int
    select: Selector
    unless: Selector | None
    queues: QueueGroup


@dataclass(frozen=True)
class MarkLayout:
    """How our number stands in a packet or conntrack mark: bits spread over class_mask, lowest first."""

    class_mask: int
    exempt_bit: int

    @property
    def capacity(self) -> int:
        """The largest class number; 0 is no class."""
        return (1 << self.class_mask.bit_count()) - 1

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
    """All one daemon wants from netfilter. owner tells its chains or table from another daemon's."""

    owner: str
    marks: MarkLayout
    diversions: tuple[Diversion, ...] = field(default=())  # highest priority first
