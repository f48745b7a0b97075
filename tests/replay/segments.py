"""TCP segments of captured frames taken apart: what a way out and in may change of them."""

import struct
from dataclasses import dataclass
from pathlib import Path

from layer45.fastpath.link import locate

from ..modules.wire import internet_sum
from .captures import read

FIN, SYN, RST, ACK = 1, 2, 4, 16
MSS, SACK = 2, 5
LARGEST_WINDOW = 0xFFFF
SPACE = 1 << 32


@dataclass(frozen=True)
class Segment:
    """link: the header in front of the IP packet. tcp: header and payload; ip: all in front of it."""

    link: bytes
    ip: bytes
    tcp: bytes

    @property
    def source(self) -> bytes:
        """Address and port."""
        return (self.ip[12:16] if self.ip[0] >> 4 == 4 else self.ip[8:24]) + self.tcp[:2]

    @property
    def target(self) -> bytes:
        return (self.ip[16:20] if self.ip[0] >> 4 == 4 else self.ip[24:40]) + self.tcp[2:4]

    @property
    def seq(self) -> int:
        return int.from_bytes(self.tcp[4:8])

    @property
    def ack(self) -> int:
        return int.from_bytes(self.tcp[8:12])

    @property
    def flags(self) -> int:
        return self.tcp[13]

    @property
    def window(self) -> int:
        return int.from_bytes(self.tcp[14:16])

    @property
    def payload(self) -> bytes:
        return self.tcp[(self.tcp[12] >> 4) * 4 :]

    @property
    def fault(self) -> int:
        """By how much the checksum is wrong: 0 is right."""
        addresses = self.ip[12:20] if self.ip[0] >> 4 == 4 else self.ip[8:40]
        return internet_sum(addresses + struct.pack("!II", len(self.tcp), 6) + self.tcp) % 0xFFFF

    def option(self, kind: int) -> int | None:
        """Where an option's value begins in tcp."""
        at, end = 20, (self.tcp[12] >> 4) * 4
        while at < end and self.tcp[at]:
            if self.tcp[at] == kind:
                return at + 2
            at += 1 if self.tcp[at] == 1 else max(2, self.tcp[min(at + 1, end - 1)])
        return None

    @property
    def mss(self) -> int | None:
        at = self.option(MSS) if self.flags & SYN else None
        return at and int.from_bytes(self.tcp[at : at + 2])

    @property
    def sack(self) -> list[int]:
        """The blocks' edges."""
        at = self.option(SACK)
        return list(struct.unpack_from(f"!{(self.tcp[at - 1] - 2) // 4}I", self.tcp, at)) if at else []

    @property
    def rest(self) -> bytes:
        """All but MSS, window and checksum."""
        tcp = bytearray(self.tcp)
        tcp[14:18] = bytes(4)
        if self.mss is not None:
            at = self.option(MSS)
            assert at
            tcp[at : at + 2] = bytes(2)
        return self.link + self.ip + tcp


def take_apart(frame: bytes, link: int) -> Segment | None:
    """Without the link's padding; None for all that is no whole TCP segment."""
    at = locate(link, frame) if frame else "short"
    if isinstance(at, str):
        return None
    packet = frame[at:]
    if packet[0] >> 4 == 4:
        count, protocol, header = int.from_bytes(packet[2:4]), packet[9:10], (packet[0] & 15) * 4
    else:
        count, protocol, header = 40 + int.from_bytes(packet[4:6]), packet[6:7], 40
    if protocol != b"\6" or not header + 20 <= count <= len(packet):
        return None
    return Segment(frame[:at], packet[:header], packet[header:count])


def segments(path: Path) -> list[Segment | None]:
    link = struct.unpack_from("=I", path.read_bytes(), 20)[0]
    return [take_apart(each.frame, link) for each in read(path)]


def assert_restored(before: Path, wire: Path, after: Path) -> None:
    """Nothing is changed by the way out and in but the MSS and windows that did not fit their field."""
    frames = [[each.frame for each in read(path)] for path in (before, wire, after)]
    parts = [segments(path) for path in (before, wire, after)]
    assert len({len(each) for each in frames}) == 1
    for at, (was, meant, now) in enumerate(zip(*parts, strict=True)):
        if frames[0][at] == frames[2][at]:
            continue
        assert was and meant and now, at
        assert was.rest == now.rest, at
        assert was.fault == now.fault, at
        assert was.mss == now.mss or (was.mss and now.mss and now.mss < was.mss), at
        assert was.window == now.window or (meant.window == LARGEST_WINDOW and now.window < was.window), at
