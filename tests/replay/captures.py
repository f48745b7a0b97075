"""Captures that the tests make themselves, and configurations to send them through."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

NULL, ETHERNET, RAW, LOOP, COOKED, IPV4, IPV6, COOKED2 = 0, 1, 101, 108, 113, 228, 229, 276
MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
MACS = bytes.fromhex("020000000002020000000001")
START_NS = 1_700_000_000_000_000_000
STEP_NS = 1_000_000


@dataclass(frozen=True)
class Record:
    """One record of a pcap file; len is given where the frame was not captured whole."""

    time_ns: int
    frame: bytes
    len: int


def udp(payload: bytes, version: int = 4, sport: int = 40000, dport: int = 5004) -> bytes:
    """An IP packet with true checksums, from local to remote."""
    return bytes(_network(version) / UDP(sport=sport, dport=dport) / payload)


def tcp(payload: bytes, version: int = 4, dport: int = 5004, **fields: object) -> bytes:
    return bytes(_network(version) / TCP(sport=40000, dport=dport, flags="A", **fields) / payload)


def _network(version: int) -> IP | IPv6:
    if version == 4:
        return IP(src="10.0.0.1", dst="10.0.0.2", id=7, flags="DF")
    return IPv6(src="fd00::1", dst="fd00::2")


def ethernet(packet: bytes, tags: Iterable[int] = ()) -> bytes:
    """An Ethernet frame, padded to 60 bytes as a card does."""
    vlan = b"".join(struct.pack("!HH", each, 100 + at) for at, each in enumerate(tags))
    frame = MACS + vlan + _ethertype(packet) + packet
    return frame + bytes(max(0, 60 - len(frame)))


def _ethertype(packet: bytes) -> bytes:
    return b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"


def linked(link: int, packet: bytes) -> bytes:
    """A frame of any link type, without padding."""
    if link == ETHERNET:
        return MACS + _ethertype(packet) + packet
    if link == COOKED:
        return struct.pack("!HHH8s", 0, 1, 6, bytes(8)) + _ethertype(packet) + packet
    if link == COOKED2:
        return _ethertype(packet) + struct.pack("!HIHBB8s", 0, 1, 1, 0, 6, bytes(8)) + packet
    if link in (NULL, LOOP):
        family = 2 if packet[0] >> 4 == 4 else 24
        return struct.pack("=I" if link == NULL else "!I", family) + packet
    return packet


def write(
    path: Path,
    frames: Iterable[bytes | Record],
    link: int = ETHERNET,
    magic: int = MICROSECONDS,
    snaplen: int = 65535,
) -> Path:
    """A pcap file in this machine's byte order; frames without a time are STEP_NS apart."""
    unit = 1 if magic == NANOSECONDS else 1000
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", magic, 2, 4, 0, 0, snaplen, link))
        for at, each in enumerate(frames):
            record = each if isinstance(each, Record) else Record(START_NS + at * STEP_NS, each, len(each))
            seconds, fraction = divmod(record.time_ns, 1_000_000_000)
            file.write(struct.pack("=IIII", seconds, fraction // unit, len(record.frame), record.len))
            file.write(record.frame)
    return path


def read(path: Path) -> list[Record]:
    """The records of a pcap file in this machine's byte order."""
    content = path.read_bytes()
    unit = 1 if struct.unpack_from("=I", content)[0] == NANOSECONDS else 1000
    records, at = [], 24
    while at < len(content):
        seconds, fraction, captured, length = struct.unpack_from("=IIII", content, at)
        frame = content[at + 16 : at + 16 + captured]
        assert len(frame) == captured, "the file ends inside a record"
        records.append(Record(seconds * 1_000_000_000 + fraction * unit, frame, length))
        at += 16 + captured
    return records


def block(kind: int, body: bytes) -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    return struct.pack("=II", kind, len(body) + 12) + body + struct.pack("=I", len(body) + 12)


def write_pcapng(path: Path, frames: Iterable[bytes], link: int = ETHERNET, resolution: int = 9) -> Path:
    """A pcapng file with one interface, timestamps in units of 10^-resolution s."""
    option = struct.pack("=HHB3xHH", 9, 1, resolution, 0, 0)
    with path.open("wb") as file:
        file.write(block(0x0A0D0D0A, struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1)))
        file.write(block(1, struct.pack("=HHI", link, 0, 65535) + option))
        for at, frame in enumerate(frames):
            stamp = (START_NS + at * STEP_NS) // 10 ** (9 - resolution)
            head = struct.pack("=IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame))
            file.write(block(6, head + frame))
    return path


TAG = '{ module = "tag", id = "host-7" }'
SCRAMBLE = '{ module = "scramble", key = "hex:000102030405060708090a0b0c0d0e0f" }'
DUPLICATE = '{ module = "duplicate", copies = 3, spacing_ms = 2.5 }'


def configure(folder: Path, *instances: str, match: str = '{ protocol = "udp" }', more: str = "") -> Path:
    """A configuration with one policy, `bench`, of these instances."""
    (folder / "policies").mkdir(parents=True, exist_ok=True)
    chain = ", ".join(instances)
    text = f"[policy.bench]\nmatch = {match}\nchain = [{chain}]\n{more}"
    (folder / "policies" / "bench.toml").write_text(text)
    return folder
