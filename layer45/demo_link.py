"""The demo's lossy link: what comes to two ports of a host is lost at random, before its queue."""

from dataclasses import dataclass, fields

from layer45.demo_hosts import DemoError, Host
from layer45.demo_iperf import PORTS

LOSS = 0.05
# iperf3 does not repeat the datagram by which a client makes itself known, and waits for the answer for ever.
SPARED_BYTES = 500
RULES = ["iptables", "-w", "-t", "raw"]


@dataclass(frozen=True)
class Link:
    """What a port's datagrams met. bytes: of IP packets. lost: of the packets."""

    packets: int
    bytes: int
    lost: int

    def __sub__(self, before: "Link") -> "Link":
        return Link(*(getattr(self, each.name) - getattr(before, each.name) for each in fields(self)))

    @property
    def loss(self) -> float:
        return self.lost / self.packets


def make_lossy(host: Host) -> None:
    """Two rules a port, in front of all others: one that counts, one that loses. They end with the host."""
    chance = ["-m", "statistic", "--mode", "random", "--probability", str(LOSS)]
    for port in PORTS:
        what = [*RULES, "-A", "PREROUTING", "-p", "udp", "--dport", str(port)]
        host.run(*what)
        host.run(*what, "-m", "length", "--length", f"{SPARED_BYTES}:", *chance, "-j", "DROP")


def links(host: Host) -> dict[int, Link]:
    """What the rules have counted, by port."""
    lines = host.run(*RULES, "-nvxL", "PREROUTING").splitlines()[2:]
    counts = [[int(word) for word in line.split()[:2]] for line in lines]  # packets, bytes
    if len(counts) != 2 * len(PORTS):
        raise DemoError(f"iptables lists {len(counts)} rules for the link, expected {2 * len(PORTS)}")
    pairs = zip(PORTS, counts[::2], counts[1::2], strict=True)
    return {port: Link(met[0], met[1], lost[0]) for port, met, lost in pairs}
