"""Packets made and taken apart by hand, and captures of them: what tests send through a chain."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

UDP, TCP = 17, 6
SYN, ACK = 2, 16
HEADER_BYTES = {(4, UDP): 28, (6, UDP): 48, (4, TCP): 40, (6, TCP): 60}
ADDRESSES = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}
NANOSECOND_MAGIC, RAW_IP = 0xA1B23C4D, 101
MILLISECOND = 1_000_000


@dataclass(frozen=True)
class Record:
    """A packet of a capture and its time."""

    packet: bytes
    time_ns: int = 0

    @property
    def payload(self) -> bytes:
        return payload_of(self.packet)


def internet_sum(content: bytes) -> int:
    """RFC 1071, folded to 16 bits."""
    words = struct.unpack(f"!{(len(content) + 1) // 2}H", content + b"\0" * (len(content) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _pseudo_header(version: int, protocol: int, l4_bytes: int) -> bytes:
    addresses = b"".join(ip_address(each).packed for each in ADDRESSES[version])
    return addresses + struct.pack("!II", l4_bytes, protocol)


def _with_sum(version: int, protocol: int, l4: bytes, at: int) -> bytes:
    value = 0xFFFF ^ internet_sum(_pseudo_header(version, protocol, len(l4)) + l4)
    return l4[:at] + struct.pack("!H", value or 0xFFFF) + l4[at + 2 :]


def _ip(version: int, protocol: int, l4: bytes) -> bytes:
    source, destination = (ip_address(each).packed for each in ADDRESSES[version])
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, len(l4), protocol, 64) + source + destination + l4
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 1, 0, 64, protocol, 0) + source + destination
    return head[:10] + struct.pack("!H", 0xFFFF ^ internet_sum(head)) + head[12:] + l4


def datagram(payload: bytes, version: int = 4, port: int = 5000) -> bytes:
    """UDP from port 4000."""
    l4 = struct.pack("!HHHH", 4000, port, 8 + len(payload), 0) + payload
    return _ip(version, UDP, _with_sum(version, UDP, l4, 6))


def segment(payload: bytes, sequence: int, version: int = 4, flags: int = ACK, options: bytes = b"") -> bytes:
    """TCP. sequence: as in the header, modulo 2^32. options: a multiple of 4 bytes."""
    words = 5 + len(options) // 4
    l4 = struct.pack("!HHIIBBHHH", 4000, 5000, sequence % (1 << 32), 1, words << 4, flags, 65535, 0, 0)
    return _ip(version, TCP, _with_sum(version, TCP, l4 + options + payload, 16))


def field_of(packet: bytes) -> int:
    """The DS field: IPv4's type of service, IPv6's traffic class."""
    return packet[1] if packet[0] >> 4 == 4 else int.from_bytes(packet[:2]) >> 4 & 0xFF


def with_field(packet: bytes, field: int) -> bytes:
    """The packet with this DS field."""
    if packet[0] >> 4 == 6:
        return bytes([0x60 | field >> 4, (field & 15) << 4 | packet[1] & 15]) + packet[2:]
    head = bytes([packet[0], field]) + packet[2:10] + bytes(2) + packet[12:20]
    return head[:10] + struct.pack("!H", 0xFFFF ^ internet_sum(head)) + head[12:] + packet[20:]


def _version_and_protocol(packet: bytes) -> tuple[int, int]:
    version = packet[0] >> 4
    return version, packet[9] if version == 4 else packet[6]


def payload_of(packet: bytes) -> bytes:
    return packet[HEADER_BYTES[_version_and_protocol(packet)] + len(options_of(packet)) :]


def options_of(packet: bytes) -> bytes:
    """Of the TCP header; none of a datagram."""
    version, protocol = _version_and_protocol(packet)
    if protocol != TCP:
        return b""
    at = HEADER_BYTES[version, protocol]
    return packet[at : at + (packet[at - 8] >> 4) * 4 - 20]


def unnumbered(packet: bytes) -> bytes:
    """The packet without what a copy has of its own: IPv4 identification and header checksum."""
    return packet if packet[0] >> 4 == 6 else packet[:4] + packet[6:10] + packet[12:]


def is_sound(packet: bytes) -> bool:
    """Whether lengths and checksums are right."""
    version, protocol = _version_and_protocol(packet)
    l4 = packet[20 if version == 4 else 40 :]
    lengths = [
        struct.unpack_from("!H", packet, 2 if version == 4 else 4)[0] == len(packet) - 40 * (version == 6)
    ]
    lengths.append(protocol == TCP or struct.unpack_from("!H", l4, 4)[0] == len(l4))
    sums = [internet_sum(_pseudo_header(version, protocol, len(l4)) + l4) == 0xFFFF]
    sums.append(version == 6 or internet_sum(packet[:20]) == 0xFFFF)
    return all(lengths + sums)


def write_capture(path: Path, records: Iterable[Record]) -> None:
    parts = [struct.pack("=IHHiIII", NANOSECOND_MAGIC, 2, 4, 0, 0, 262144, RAW_IP)]
    for record in records:
        seconds, ns = divmod(record.time_ns, 1000 * MILLISECOND)
        parts += [struct.pack("=IIII", seconds, ns, len(record.packet), len(record.packet)), record.packet]
    path.write_bytes(b"".join(parts))


def read_capture(path: Path) -> list[Record]:
    content, at, records = path.read_bytes(), 24, []
    assert struct.unpack_from("=I", content)[0] == NANOSECOND_MAGIC
    while at < len(content):
        seconds, ns, count, whole = struct.unpack_from("=IIII", content, at)
        assert count == whole
        records.append(Record(content[at + 16 : at + 16 + count], seconds * 1000 * MILLISECOND + ns))
        at += 16 + count
    return records
