"""What a capture shows of a TCP stream."""

import struct

from .topology import Capture


def stream_on_the_wire(capture: Capture, source_port: int) -> bytes:
    """The bytes that the first connection carried from this port on, in the order of their numbers."""
    first, segments = None, {}
    for port, sequence, flags, payload in tcp_segments(capture):
        if port == source_port and flags & 2:
            first = sequence + 1
        elif port == source_port and first is not None and payload:
            segments[(sequence - first) & 0xFFFFFFFF] = payload
    return _joined(segments)


def _joined(segments: dict[int, bytes]) -> bytes:
    joined = bytearray()
    for at in sorted(segments):
        assert at <= len(joined), f"the capture has a hole at {len(joined)}"
        joined[at : at + len(segments[at])] = segments[at]
    return bytes(joined)


def tcp_segments(capture: Capture) -> list[tuple[int, int, int, bytes]]:
    """(source port, sequence number, flags, payload) of each; Ethernet, without VLANs or IPv6 extensions."""
    found, at = [], 24
    while at < len(capture.content):
        (count,) = struct.unpack_from("=I", capture.content, at + 8)
        found.append(_segment(capture.content[at + 30 : at + 16 + count]))
        at += 16 + count
    return found


def _segment(packet: bytes) -> tuple[int, int, int, bytes]:
    start = 40 if packet[0] >> 4 == 6 else (packet[0] & 15) * 4
    port, _, sequence = struct.unpack_from("!HHI", packet, start)
    return port, sequence, packet[start + 13], packet[start + (packet[start + 12] >> 4) * 4 :]
