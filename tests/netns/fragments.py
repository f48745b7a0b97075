"""IP fragments as no kernel makes them: cut by hand, and put on the wire past its network stack."""

import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from ..modules.wire import internet_sum
from .topology import Host

MORE_FRAGMENTS = 0x2000
NEXT_IS_FRAGMENT = 44
ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}


class Cut(NamedTuple):
    """Bytes of what stands behind the IP header, from a multiple of 8 on. more: it says others follow."""

    begin: int
    end: int
    more: bool


def fragment(packet: bytes, serial: int, cut: Cut) -> bytes:
    """Of an IPv4 packet without options, or an IPv6 one without extension headers."""
    if packet[0] >> 4 == 6:
        return _fragment6(packet, serial, cut)
    content = packet[20:][cut.begin : cut.end]
    where = cut.begin // 8 | (MORE_FRAGMENTS if cut.more else 0)
    head = (
        packet[:2]
        + struct.pack("!HHH", 20 + len(content), serial, where)
        + packet[8:10]
        + bytes(2)
        + packet[12:20]
    )
    return head[:10] + struct.pack("!H", 0xFFFF ^ internet_sum(head)) + head[12:] + content


def _fragment6(packet: bytes, serial: int, cut: Cut) -> bytes:
    content = packet[40:][cut.begin : cut.end]
    head = packet[:4] + struct.pack("!HB", 8 + len(content), NEXT_IS_FRAGMENT) + packet[7:40]
    return head + struct.pack("!BBHI", packet[6], 0, cut.begin | cut.more, serial) + content


def put_on_the_wire(host: Host, other: Host, packets: Iterable[bytes]) -> None:
    """Sends IP packets from one host to the other, as they are."""
    addresses = b"".join(bytes.fromhex(each.mac.replace(":", "")) for each in (other, host))
    with host.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((host.device, 0))
        for packet in packets:
            wire.send(addresses + ETHERTYPES[packet[0] >> 4] + packet)
