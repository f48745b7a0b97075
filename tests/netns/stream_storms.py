"""Floods of SYNs by a raw socket, and what a daemon keeps of connections: for the tests of TCP streams."""

import random
import socket
import struct
from pathlib import Path

from layer45.config import load_settings
from layer45.loader import owner_name
from layer45.rules import bpf, pins
from layer45.rules.known import MAP
from layer45.rules.known_program import KEY_BYTES, VALUE_BYTES

from .daemons import Daemon
from .topology import Host


def syn_flood(host: Host, peer: Host, port: int, count: int, option: bytes) -> None:
    """SYNs from host to a port of the peer, each from another address and port; option: in their headers."""
    numbers = random.Random(count)
    with host.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for _ in range(count):
            source = bytes([10, 77, numbers.randrange(1, 250), numbers.randrange(1, 250)])
            raw.sendto(_syn(numbers, source, socket.inet_aton(peer.ipv4), port, option), (peer.ipv4, 0))


def _syn(numbers: random.Random, source: bytes, target: bytes, port: int, option: bytes) -> bytes:
    options = option + bytes([2, 4, 5, 180])
    offset = (20 + len(options)) // 4 << 4
    ports, number = (numbers.randrange(1024, 65536), port), numbers.getrandbits(32)
    tcp = struct.pack("!HHIIBBHHH", *ports, number, 0, offset, 2, 64240, 0, 0) + options
    total = _sum(source + target + struct.pack("!HH", 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), numbers.getrandbits(16), 0, 64, 6, 0)
    return header + source + target + tcp


def _sum(content: bytes) -> int:
    total = sum(struct.unpack(f"!{len(content) // 2}H", content))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def known_connections(daemon: Daemon) -> int:
    """Entries of the map that the daemon's rules ask."""
    with daemon.host.entered():
        place = pins.directory(owner_name(load_settings(daemon.directory)))
    return sum(1 for _ in bpf.entries(bpf.pinned(place / MAP), KEY_BYTES, VALUE_BYTES))


def resident_bytes(daemon: Daemon) -> int:
    """Of the daemon's process."""
    assert daemon.process is not None
    rows = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmRSS:"))
