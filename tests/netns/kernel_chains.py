"""What tests of kernel chains ask a daemon, and the traffic that they send."""

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from layer45.rules import pins

from .daemons import Daemon, Service, client_side, running, server_side
from .datagrams import FAMILIES, connected, echo, exchange
from .topology import Hosts

SOL_UDP, UDP_SEGMENT = 17, 103
DESTINATION_OPTIONS = bytes([0, 0, 1, 4, 0, 0, 0, 0])  # IPv6: six bytes of padding
NO_OPERATION = b"\x01" * 4
LONGEST = 4000  # more than fits a packet on the wire, so that there are fragments


@contextmanager
def pair(hosts: Hosts, services: list[Service], path: str) -> Iterator[tuple[Daemon, Daemon]]:
    """The services at both ends, on a path, with echo servers."""
    here = [replace(each, path=path) for each in services]
    with (
        running(hosts.a, client_side(here)) as a,
        running(hosts.b, server_side(here)) as b,
        echo(hosts.b, *(each.port for each in here)),
    ):
        yield a, b


def path_of(daemon: Daemon, policy: str) -> tuple[str, str]:
    """As status tells it: the path, and why not another."""
    found = next(each for each in daemon.ask("status")["policies"] if each["name"] == policy)
    return found["path"], found["path_reason"]


def queued(daemon: Daemon) -> int:
    """Packets that the daemon's engine has ever seen."""
    return daemon.engine()["received"]


def handed_over(daemon: Daemon) -> int:
    """Packets that the kernel has ever put into a queue of the daemon's host; see nfnetlink_queue.c."""
    rows = daemon.host.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout.splitlines()
    return sum(int(row.split()[7]) for row in rows)


def pinned(daemon: Daemon) -> list[str]:
    """Names of programs of the daemon's kernel chains."""
    owner = daemon.ask("status")["rules"]["owner"]
    with daemon.host.entered():
        return sorted(each.name for place in pins.existing(owner) for each in place.glob("chain*"))


def counted(daemon: Daemon, policy: str) -> dict[str, Any]:
    """All that a policy counts, whichever way its packets take."""
    return {key: value for key, value in daemon.policy(policy).items() if key not in ("flows", "path")}


def ordinary(seed: int, count: int) -> list[bytes]:
    """Payloads of all lengths, many with the beginning that the tests' policies look for."""
    dice = random.Random(seed)
    heads = (b"", b"a", b"ab", b"abc", b"ac")
    lengths = (0, 1, 2, 3, 99, 100, 101, 1400, 1472, LONGEST)
    return [(dice.choice(heads) + dice.randbytes(LONGEST))[: dice.choice(lengths)] for _ in range(count)]


def arrivals(hosts: Hosts, services: list[Service], seed: int, count: int, odd: bool) -> list[list[bytes]]:
    """What comes back of what is sent to each service over IPv4 and IPv6. odd: with options, and cut late."""
    found = []
    for service in services:
        for family in FAMILIES:
            with connected(hosts.a, family, hosts.b, service.port) as client:
                if odd:
                    _be_odd(client, family)
                sent = [each for each in ordinary(seed, count) if not odd or len(each) < 1400]
                found.append(sorted(exchange(client, sent, 0.4)))
    return found


def _be_odd(client: socket.socket, family: int) -> None:
    if family == socket.AF_INET:
        client.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, NO_OPERATION)
    else:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, DESTINATION_OPTIONS)


def in_segments(hosts: Hosts, services: list[Service], payload: bytes, size: int) -> list[list[bytes]]:
    """What comes back of one super-packet to each service."""
    found = []
    for service in services:
        for family in FAMILIES:
            with connected(hosts.a, family, hosts.b, service.port) as client:
                client.setsockopt(SOL_UDP, UDP_SEGMENT, size)
                found.append(sorted(exchange(client, [payload], 0.4)))
    return found
