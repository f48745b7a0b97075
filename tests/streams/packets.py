"""TCP packets taken apart and put together by hand; options edited where they stand."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from ..modules.wire import internet_sum

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 1, 2, 4, 8, 16, 32, 64, 128
OPTION_MSS, OPTION_SCALE, OPTION_SACK_PERMITTED, OPTION_SACK, OPTION_TIMESTAMPS = 2, 3, 4, 5, 8
OPTION_EXPERIMENT, EXPERIMENT_ID, EXPERIMENT_BYTES = 253, 0x4C45, 8
MOST_OPTION_BYTES = 40
MODULUS = 1 << 32
TCP = 6


def near(field_value: int, reference: int) -> int:
    """The number nearest to reference that is field_value modulo 2^32."""
    return reference + (field_value - reference + (MODULUS >> 1)) % MODULUS - (MODULUS >> 1)


@dataclass
class Packet:
    """An IP packet with TCP in it. ip: the header as it was, its lengths and sum stale."""

    ip: bytes
    source_port: int = 4000
    target_port: int = 5000
    seq: int = 0
    ack: int = 0
    flags: int = ACK
    window: int = 0
    urgent: int = 0
    options: bytes = b""
    payload: bytes = field(default=b"")

    @property
    def version(self) -> int:
        return self.ip[0] >> 4

    @property
    def addresses(self) -> tuple[bytes, bytes]:
        return (self.ip[12:16], self.ip[16:20]) if self.version == 4 else (self.ip[8:24], self.ip[24:40])

    @property
    def sequence_bytes(self) -> int:
        """How much of the sequence space it takes."""
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)

    def but(self, **changes: object) -> "Packet":
        return replace(self, **changes)  # type: ignore[arg-type]

    def build(self) -> bytes:
        """With right lengths and checksums."""
        assert len(self.options) % 4 == 0 and len(self.options) <= MOST_OPTION_BYTES
        tcp = struct.pack(
            "!HHIIBBHHH",
            self.source_port,
            self.target_port,
            self.seq % MODULUS,
            self.ack % MODULUS,
            (20 + len(self.options)) // 4 << 4,
            self.flags,
            self.window,
            0,
            self.urgent,
        )
        tcp += self.options + self.payload
        pseudo = b"".join(self.addresses) + struct.pack("!II", len(tcp), TCP)
        tcp = tcp[:16] + struct.pack("!H", 0xFFFF ^ internet_sum(pseudo + tcp)) + tcp[18:]
        return self._ip_header(len(tcp)) + tcp

    def _ip_header(self, count: int) -> bytes:
        if self.version == 6:
            return self.ip[:4] + struct.pack("!H", count) + self.ip[6:]
        head = self.ip[:2] + struct.pack("!H", len(self.ip) + count) + self.ip[4:10] + b"\0\0" + self.ip[12:]
        return head[:10] + struct.pack("!H", 0xFFFF ^ internet_sum(head)) + head[12:]


def parse(packet: bytes) -> Packet | None:
    """None: not a whole TCP packet."""
    at = (packet[0] & 15) * 4 if packet[0] >> 4 == 4 else 40
    if len(packet) < at + 20:
        return None
    source, target, seq, ack, offset, flags, window, _, urgent = struct.unpack_from("!HHIIBBHHH", packet, at)
    end = at + (offset >> 4) * 4
    if end < at + 20 or end > len(packet):
        return None
    options, payload = packet[at + 20 : end], packet[end:]
    return Packet(packet[:at], source, target, seq, ack, flags, window, urgent, options, payload)


def ip_header(version: int, source: str, target: str) -> bytes:
    """Without lengths; may be fragmented."""
    addresses = ip_address(source).packed + ip_address(target).packed
    if version == 6:
        return struct.pack("!IHBB", 6 << 28, 0, TCP, 64) + addresses
    return struct.pack("!BBHHHBBH", 0x45, 0, 0, 1, 0, 64, TCP, 0) + addresses


def is_sound(packet: bytes) -> bool:
    """Whether lengths and checksums are right."""
    parsed = parse(packet)
    return parsed is not None and parsed.build() == packet


# --- options ----------------------------------------------------------------------------------


def walk(options: bytes) -> Iterator[tuple[int, int, int]]:
    """(kind, start, end) of each option; ends at the first that lies about its length."""
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        if at + 2 > len(options) or options[at + 1] < 2 or at + options[at + 1] > len(options):
            return
        yield options[at], at, at + options[at + 1]
        at += options[at + 1]


def find(options: bytes, wanted: int, count: int) -> int | None:
    """Where the first option of a kind and length is."""
    for kind, start, end in walk(options):
        if kind == wanted and end - start == count:
            return start
    return None


def mss_of(options: bytes) -> int | None:
    at = find(options, OPTION_MSS, 4)
    return None if at is None else int(struct.unpack_from("!H", options, at + 2)[0])


def scale_of(options: bytes) -> int | None:
    at = find(options, OPTION_SCALE, 3)
    return None if at is None else min(14, options[at + 2])


def timestamp_of(options: bytes) -> tuple[int, int] | None:
    at = find(options, OPTION_TIMESTAMPS, 10)
    return None if at is None else struct.unpack_from("!II", options, at + 2)


def sack_places(options: bytes) -> list[int]:
    """Where each edge of each SACK block is."""
    places = []
    for kind, start, end in walk(options):
        if kind == OPTION_SACK and (end - start) % 8 == 2:
            places += list(range(start + 2, end, 4))
    return places


def sack_blocks(options: bytes) -> list[tuple[int, int]]:
    places = sack_places(options)
    edges = [int(struct.unpack_from("!I", options, at)[0]) for at in places]
    return list(zip(edges[::2], edges[1::2], strict=True))


def experiment_of(options: bytes) -> tuple[int, int] | None:
    """The digests of an offer or answer."""
    at = _experiment_place(options)
    return None if at is None else struct.unpack_from("!HH", options, at + 4)


def without_experiment(options: bytes) -> bytes:
    at = _experiment_place(options)
    return options if at is None else options[:at] + options[at + EXPERIMENT_BYTES :]


def experiment(digests: tuple[int, int]) -> bytes:
    return struct.pack("!BBHHH", OPTION_EXPERIMENT, EXPERIMENT_BYTES, EXPERIMENT_ID, *digests)


def _experiment_place(options: bytes) -> int | None:
    for kind, start, end in walk(options):
        if kind == OPTION_EXPERIMENT and end - start == EXPERIMENT_BYTES:  # noqa: SIM102
            if struct.unpack_from("!H", options, start + 2)[0] == EXPERIMENT_ID:
                return start
    return None
