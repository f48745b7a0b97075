"""A capture of one TCP connection, from host a to lab.PORT of host b: handshake, segments and their ACKs."""

import struct
from collections.abc import Iterator
from pathlib import Path

from perf import lab

ENDS = (bytes((10, 77, 0, 1)) + (40000).to_bytes(2), bytes((10, 77, 0, 2)) + lab.PORT.to_bytes(2))
SYN, ACK = 2, 16
MSS, MSS_OPTION = 1460, struct.pack("!BBH", 2, 4, 1460)
WINDOW = 0xFFFF
SPACING_US = 10
ACK_EVERY = 2  # segments

Segment = tuple[int, int, int, int, bytes, bytes]  # sender (0: a), seq, ack, flags, options, payload


def write(path: Path, segments: int, payload_bytes: int) -> None:
    """A pcap file of Ethernet frames, SPACING_US apart; so many segments with payload, and their ACKs."""
    with path.open("wb", buffering=1 << 20) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number, segment in enumerate(_connection(segments, payload_bytes)):
            frame = bytes(12) + b"\x08\0" + _packet(*segment)
            seconds, micros = divmod(number * SPACING_US, 1_000_000)
            file.write(struct.pack("<IIII", seconds, micros, len(frame), len(frame)) + frame)


def _connection(segments: int, payload_bytes: int) -> Iterator[Segment]:
    yield 0, 0, 0, SYN, MSS_OPTION, b""
    yield 1, 0, 1, SYN | ACK, MSS_OPTION, b""
    yield 0, 1, 1, ACK, b"", b""
    content = bytes(range(256)) * (payload_bytes // 256 + 1)
    for number in range(segments):
        at = 1 + number * payload_bytes
        yield 0, at, 1, ACK, b"", content[:payload_bytes]
        if number % ACK_EVERY == ACK_EVERY - 1:
            yield 1, 1, at + payload_bytes, ACK, b"", b""


def _packet(sender: int, seq: int, ack: int, flags: int, options: bytes, payload: bytes) -> bytes:
    source, target = ENDS[sender], ENDS[1 - sender]
    words = (5 + len(options) // 4) << 4
    tcp = source[4:] + target[4:] + struct.pack("!IIBBHHH", seq, ack, words, flags, WINDOW, 0, 0) + options
    tcp += payload
    addresses = source[:4] + target[:4]
    tcp = tcp[:16] + _checksum(addresses + struct.pack("!HH", 6, len(tcp)) + tcp) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + addresses
    return ip[:10] + _checksum(ip) + ip[12:] + tcp


def _checksum(content: bytes) -> bytes:
    """A sum with end-around carry is the remainder by 65535."""
    return (0xFFFF - int.from_bytes(content + bytes(len(content) % 2)) % 0xFFFF).to_bytes(2)
