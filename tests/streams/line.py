"""Two hosts and the packets between them, one by one, in numbers that count from the stream's start."""

import struct
from dataclasses import dataclass

from .network import Ends
from .packets import ACK, MODULUS, SYN, Packet, ip_header, near, parse, sack_blocks

ADDRESSES = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}
PLAIN_SYN = bytes([2, 4, 5, 180, 1, 3, 3, 7])  # MSS 1460, scale 7


@dataclass
class Line:
    """bases: the sequence number of offset 0 of what each side sends."""

    hosts: tuple[Ends, Ends]
    isns: tuple[int, int] = (1000, 9000)
    version: int = 4

    def __post_init__(self) -> None:
        self.bases = [isn + 1 for isn in self.isns]

    def packet(
        self, side: int, seq: int, payload: bytes = b"", *, ack: int = 0, flags: int = ACK, **more: object
    ) -> Packet:
        """seq and ack: offsets."""
        header = ip_header(self.version, *ADDRESSES[self.version][:: -1 if side else 1])
        ports = (5000, 4000) if side else (4000, 5000)
        numbers = (seq + self.bases[side]) % MODULUS, (ack + self.bases[1 - side]) % MODULUS
        return Packet(header, *ports, *numbers, flags, payload=payload).but(**{"window": 1000, **more})

    def out(self, side: int, packet: Packet) -> list[Packet]:
        """What a side's host makes of a packet of its kernel's."""
        return [self._read(each) for each in self.hosts[side].egress(packet.build())]

    def into(self, side: int, packet: Packet) -> list[Packet]:
        """What a side's kernel gets of a packet of the wire's."""
        return [self._read(each) for each in self.hosts[side].ingress(packet.build())]

    def over(self, side: int, packet: Packet) -> Packet:
        """From one kernel to the other."""
        (wire,) = self.out(side, packet)
        (arrived,) = self.into(1 - side, wire)
        return arrived

    def seq(self, side: int, packet: Packet) -> int:
        """Of a packet that side sent, as an offset."""
        return near(packet.seq - self.bases[side], 0)

    def ack(self, side: int, packet: Packet) -> int:
        return near(packet.ack - self.bases[1 - side], 0)

    def numbers(self, side: int, packet: Packet) -> tuple[int, int, int]:
        return self.seq(side, packet), self.ack(side, packet), len(packet.payload)

    def syn(self, options: bytes = PLAIN_SYN, payload: bytes = b"", window: int = 1000) -> Packet:
        return self.packet(0, -1, payload, ack=0, flags=SYN, options=options, window=window).but(ack=0)

    def syn_ack(self, options: bytes = PLAIN_SYN, ack: int = 0, window: int = 1000) -> Packet:
        return self.packet(1, -1, ack=ack, flags=SYN | ACK, options=options, window=window)

    def open(self, options: bytes = PLAIN_SYN, payload: bytes = b"", accepted: int = 0) -> "Line":
        """A whole handshake; offset 0 is behind what the SYN/ACK acknowledges."""
        self.over(0, self.syn(options, payload))
        self.over(1, self.syn_ack(ack=accepted))
        self.bases[0] += accepted
        self.over(0, self.packet(0, 0))
        return self

    @staticmethod
    def _read(packet: bytes) -> Packet:
        parsed = parse(packet)
        assert parsed
        assert parsed.build() == packet, "wrong length or checksum"
        return parsed


def blocks(line: Line, side: int, packet: Packet) -> list[tuple[int, int]]:
    """SACK blocks of a packet that side sent, as offsets."""
    edges = [near(edge - line.bases[1 - side], 0) for each in sack_blocks(packet.options) for edge in each]
    return list(zip(edges[::2], edges[1::2], strict=True))


def sack(line: Line, side: int, *spans: tuple[int, int]) -> bytes:
    edges = [(edge + line.bases[1 - side]) % MODULUS for span in spans for edge in span]
    return struct.pack(f"!BBBB{len(edges)}I", 1, 1, 5, 2 + 4 * len(edges), *edges)
