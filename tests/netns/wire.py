"""What a capture shows of a TCP stream."""

import struct
from dataclasses import dataclass

from .topology import Capture

SYN = 2


@dataclass(frozen=True)
class Segment:
    """Of TCP."""

    ports: tuple[int, int]  # from, to
    sequence: int
    flags: int
    options: bytes
    payload: bytes


def stream_on_the_wire(capture: Capture, source_port: int) -> bytes:
    """What the first connection that opens carries from this port on, in the order of its numbers."""
    segments = [each for each in tcp_segments(capture) if each.ports[0] == source_port]
    opens = next(each for each in segments if each.flags & SYN)
    carried = {
        (each.sequence - opens.sequence - 1) & 0xFFFFFFFF: each.payload
        for each in segments
        if each.ports == opens.ports and each.payload
    }
    return _joined(carried)


def _joined(carried: dict[int, bytes]) -> bytes:
    joined = bytearray()
    for at in sorted(carried):
        assert at <= len(joined), f"the capture has a hole at {len(joined)}"
        joined[at : at + len(carried[at])] = carried[at]
    return bytes(joined)


def tcp_segments(capture: Capture) -> list[Segment]:
    """All of them; Ethernet, without VLANs or IPv6 extensions."""
    found, at = [], 24
    while at < len(capture.content):
        (count,) = struct.unpack_from("=I", capture.content, at + 8)
        found.append(_segment(capture.content[at + 30 : at + 16 + count]))
        at += 16 + count
    return found


def _segment(packet: bytes) -> Segment:
    start = 40 if packet[0] >> 4 == 6 else (packet[0] & 15) * 4
    ports, sequence = struct.unpack_from("!HH", packet, start), struct.unpack_from("!I", packet, start + 4)
    end = int.from_bytes(packet[4:6]) + 40 if packet[0] >> 4 == 6 else int.from_bytes(packet[2:4])
    begin = start + (packet[start + 12] >> 4) * 4
    options, payload = packet[start + 20 : begin], packet[begin:end]
    return Segment((ports[0], ports[1]), sequence[0], packet[start + 13], options, payload)
