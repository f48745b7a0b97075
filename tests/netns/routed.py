"""Two hosts with a router between them, whose routes may be narrower than its devices.

a eth0 10.77.1.1, fd77:1::1 ── to-a r to-b ── b eth0 10.77.2.1, fd77:2::1
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator

from .topology import DEVICE, NAMESPACES, Host, Hosts

ROUTER = {socket.AF_INET: "10.77.1.254", socket.AF_INET6: "fd77:1::fe"}  # as a sees it
SIDES = {"a": 1, "b": 2}


@contextlib.contextmanager
def routed_hosts() -> Iterator[tuple[Hosts, Host]]:
    """The two hosts, and the router. Needs root."""
    tag = f"l45-{os.getpid()}-r"
    a, b = (
        Host(f"{tag}-{side}", f"10.77.{number}.1", f"fd77:{number}::1", f"02:00:00:00:01:0{number}")
        for side, number in SIDES.items()
    )
    router = Host(f"{tag}-r", ROUTER[socket.AF_INET], ROUTER[socket.AF_INET6], "")
    try:
        for host in (router, a, b):
            subprocess.run(["ip", "netns", "add", host.name], check=True)
            host.run(["ip", "link", "set", "lo", "up"])
        for side, host in zip(SIDES, (a, b), strict=True):
            _join(host, router, SIDES[side], f"to-{side}")
        router.run(["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        yield Hosts(a, b), router
    finally:
        for host in (a, b, router):
            host.stop_processes()
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True, check=False)


def _join(host: Host, router: Host, number: int, device: str) -> None:
    peer = ["peer", "name", device, "netns", str(NAMESPACES / router.name)]
    host.run(["ip", "link", "add", DEVICE, "type", "veth", *peer])
    for end, at, v4, v6 in (
        (host, DEVICE, host.ipv4, host.ipv6),
        (router, device, f"10.77.{number}.254", f"fd77:{number}::fe"),
    ):
        end.run(["ip", "address", "add", f"{v4}/24", "dev", at])
        end.run(["ip", "address", "add", f"{v6}/64", "dev", at, "nodad"])
        end.run(["ip", "link", "set", at, "up"])
    host.run(["ip", "route", "add", "default", "via", f"10.77.{number}.254"])
    host.run(["ip", "-6", "route", "add", "default", "via", f"fd77:{number}::fe"])


def narrow(router: Host, family: int, mtu: int) -> None:
    """What the router sends on from now on, either way, may be so long."""
    for side, number in SIDES.items():
        network = f"10.77.{number}.0/24" if family == socket.AF_INET else f"fd77:{number}::/64"
        words = [network, "dev", f"to-{side}", "mtu", "lock", str(mtu)]
        if family == socket.AF_INET6:
            words += ["proto", "kernel", "metric", "256"]
        else:
            words += ["proto", "kernel", "src", f"10.77.{number}.254"]
        router.run(["ip", "-6" if family == socket.AF_INET6 else "-4", "route", "replace", *words])
