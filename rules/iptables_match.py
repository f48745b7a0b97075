"""Selectors as iptables matches.

A key with several values is an OR, the keys of a selector are an AND, and iptables knows neither beyond
"all matches of one rule". So a selector becomes stages: each is a list of alternative match texts, and all
stages must hold. Keys with one value go into the first stage's rules; each key with more has its own stage.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from layer45.rules.boxes import by_tag
from layer45.rules.diversion import Network, PortRange, Selector
from layer45.rules.tree import SET_SLOTS, Spans, slots

BITS = {4: 32, 6: 128}  # of an address

Alternatives = list[str]


@dataclass(frozen=True)
class Place:
    """Where a rule stands, which decides how a key is looked at.

    tag_match: what stands for a selector's owner keys where the packet does not tell.
    """

    family: int  # 4 or 6
    egress: bool
    protocol: str  # udp or tcp
    tag_match: Callable[[Selector], Alternatives]


def stages(selector: Selector, place: Place) -> list[Alternatives] | None:
    """What must hold, stage by stage; None when nothing at this place can match."""
    if selector.protocol and place.protocol not in selector.protocol:
        return None
    keys = [*_addresses(selector, place), *_ports(selector, place), *_owner(selector, place)]
    if not all(keys):
        return None
    single = [key[0] for key in keys if len(key) == 1]
    several = [key for key in keys if len(key) > 1] or [[""]]
    combined = [[" ".join(filter(None, [*single, value])) for value in several[0]], *several[1:]]
    return [[_with_protocol(match, place.protocol) for match in stage] for stage in combined]


def question(axis: str, numbers: Spans, place: Place) -> str:
    """Whether an address, a port or an owner is in the spans; only of ports there may be several.

    An address's is a network.
    """
    outward = place.egress == axis.startswith("local")
    if axis in ("local_port", "remote_port"):
        (ports,) = _multiports(numbers)
        match = _port_match(place.protocol, "--sports" if outward else "--dports", ports)
        return _with_protocol(match, place.protocol)
    ((first, last),) = numbers
    if axis in ("local", "remote"):
        address = IPv4Address(first) if place.family == 4 else IPv6Address(first)
        return f"{'-s' if outward else '-d'} {address}/{BITS[place.family] - (last - first).bit_length()}"
    option = {"user": "--uid-owner", "group": "--gid-owner"}[axis]
    return f"-m owner {option} {first}-{last}"


def _with_protocol(match: str, protocol: str) -> str:
    return f"-p {protocol} {match}" if "port" in match else match


def _addresses(selector: Selector, place: Place) -> list[Alternatives]:
    local, remote = ("-s", "-d") if place.egress else ("-d", "-s")
    return [
        [f"{option} {network}" for network in _of_family(networks, place.family)]
        for option, networks in ((local, selector.local), (remote, selector.remote))
        if networks
    ]


def _of_family(networks: Iterable[Network], family: int) -> list[Network]:
    return [n for n in dict.fromkeys(networks) if isinstance(n, IPv4Network) == (family == 4)]


def _ports(selector: Selector, place: Place) -> list[Alternatives]:
    local, remote = ("--sports", "--dports") if place.egress else ("--dports", "--sports")
    return [
        [_port_match(place.protocol, option, ports) for ports in _multiports(ranges)]
        for option, ranges in ((local, selector.local_port), (remote, selector.remote_port))
        if ranges
    ]


def _port_match(protocol: str, option: str, ports: str) -> str:
    """iptables-nft has its own way for one range, which costs a packet less."""
    if "," in ports:
        return f"-m multiport {option} {ports}"
    return f"-m {protocol} {option.removesuffix('s')} {ports}"


def _multiports(ranges: Iterable[PortRange]) -> list[str]:
    lists: list[list[str]] = [[]]
    free = SET_SLOTS
    for first, last in dict.fromkeys(ranges):
        needed = slots((first, last))
        if needed > free:
            lists.append([])
            free = SET_SLOTS
        lists[-1].append(str(first) if first == last else f"{first}:{last}")
        free -= needed
    return [",".join(words) for words in lists]


def _owner(selector: Selector, place: Place) -> list[Alternatives]:
    if not selector.owned:
        return []
    if by_tag(selector, place.egress):
        return [place.tag_match(selector)]
    keys = [
        [f"-m owner --uid-owner {uid}" for uid in selector.user],
        [f"-m owner --gid-owner {gid}" for gid in selector.group],
        [in_cgroup(path) for path in selector.cgroup],
    ]
    return [key for key in keys if key]


def in_cgroup(path: str) -> str:
    """Matches packets of sockets that were made in the cgroup or below it."""
    return f"-m cgroup --path {quoted(path)}"


def quoted(text: str) -> str:
    """One word, for iptables-restore."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
