"""Which of the engine's flows are a socket's: by the 5-tuple; if it is not connected, by its own end."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from layer45.rules.socket_list import PROTOCOLS, Address, Socket

Flow = dict[str, Any]
End = tuple[Address | None, int]


@dataclass(frozen=True)
class Traffic:
    """What the engine has seen of a socket. policy, state: of the one flow of a connected socket."""

    flows: int = 0
    packets: int = 0
    bytes: int = 0
    since_s: float = 0.0
    policy: str = ""
    state: str = ""


def endpoint(text: str) -> End:
    """ "10.0.0.1:53", "[fd00::1]:53" or "*:53" as address and port; port * is 0. Raises ValueError."""
    host, _, port = text.rpartition(":")
    address = None if host == "*" else ip_address(host.removeprefix("[").removesuffix("]"))
    return address, 0 if port == "*" else int(port)


def read_address(text: str) -> tuple[str, list[End]]:
    """ "udp/10.0.0.1:53" or "udp/10.0.0.1:53/10.0.0.2:9" as protocol and ends. Raises ValueError."""
    protocol, *ends = text.split("/")
    try:
        if protocol not in PROTOCOLS or len(ends) not in (1, 2):
            raise ValueError
        return protocol, [endpoint(each) for each in ends]
    except ValueError:
        expected = "expected PROTO/LOCAL or PROTO/LOCAL/REMOTE, as in tcp/10.0.0.1:80 or udp/*:53/[fd00::1]:9"
        raise ValueError(expected) from None


def written(address: Address | None, port: int) -> str:
    """An endpoint's text."""
    host = "*" if address is None else f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{port or '*'}"


def traffic(sockets: Collection[Socket], flows: Iterable[Flow]) -> dict[int, Traffic]:
    """Inode → what the engine saw, of sockets that it has seen. Nothing of sockets that share an address
    (SO_REUSEPORT): whose a flow is nobody knows then."""
    index = _Index(flows)
    several = Counter(map(_ends, sockets))
    found = {}
    for each in sorted(sockets, key=lambda each: (each.remote is None, each.local is None)):
        taken = index.take(each)
        if taken and several[_ends(each)] == 1:
            found[each.inode] = _added(taken, each.remote is not None)
    return found


class _Index:
    """Flows that no socket has taken yet, by protocol and local port, then by their ends."""

    def __init__(self, flows: Iterable[Flow]) -> None:
        self._by_port: dict[tuple[str, int], dict[tuple[End, End], list[Flow]]] = {}
        for flow in flows:
            local, remote = endpoint(flow["local"]), endpoint(flow["remote"])
            there = self._by_port.setdefault((flow["protocol"], local[1]), {})
            there.setdefault((local, remote), []).append(flow)

    def take(self, socket: Socket) -> list[Flow]:
        """A connected socket's, or all that are left at the address of a UDP socket that is not."""
        there = self._by_port.get((socket.protocol, socket.local_port), {})
        if socket.remote is not None:
            ends = (socket.local, socket.local_port), (socket.remote, socket.remote_port)
            return there.pop(ends, [])
        if socket.protocol != "udp":
            return []
        mine = [ends for ends in there if _is_at(socket, ends[0][0])]
        return [flow for ends in mine for flow in there.pop(ends)]


def _is_at(socket: Socket, address: Address | None) -> bool:
    if socket.local is not None:
        return address == socket.local
    return address is not None and address.version in socket.families


def _ends(socket: Socket) -> tuple[Any, ...]:
    ends = (socket.local, socket.local_port, socket.remote, socket.remote_port)
    return (socket.protocol, *ends, socket.families)


def _added(flows: list[Flow], connected: bool) -> Traffic:
    directions = ("egress", "ingress")
    return Traffic(
        len(flows),
        sum(flow[f"{each}_packets"] for flow in flows for each in directions),
        sum(flow[f"{each}_bytes"] for flow in flows for each in directions),
        max(flow["age_s"] for flow in flows),
        flows[0]["policy"] if connected else "",
        flows[0]["state"] if connected else "",
    )
