"""What the engine does with TCP streams, said again in plain Python: clear and slow, from the design alone.

A Host is what stands between a kernel and the wire. Its chain is a list of stages; each has a layout for what
goes out and one for what comes in. Nothing that comes in moves a reference: offsets of 64 bits are taken from
the numbers of the local kernel's own packets.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .layouts import Layout, StreamMap
from .packets import (
    ACK,
    CWR,
    EXPERIMENT_BYTES,
    FIN,
    MODULUS,
    MOST_OPTION_BYTES,
    OPTION_MSS,
    PSH,
    RST,
    SYN,
    URG,
    Packet,
    experiment,
    experiment_of,
    find,
    mss_of,
    near,
    parse,
    sack_places,
    scale_of,
    without_experiment,
)  # fmt: skip

LARGEST = 0xFFFF
OFFERS = 3  # then SYNs go without, for boxes on the way that drop what they do not know
SMALLEST_MSS = 88  # Linux ignores a smaller one


@dataclass(frozen=True)
class Stage:
    """One stream instance of a chain, as one host sees it."""

    out: Layout = field(default_factory=Layout)
    into: Layout = field(default_factory=Layout)

    def mirrored(self) -> "Stage":
        return Stage(self.into, self.out)


class StageState:
    """A stage of one connection. base: the sequence number of offset 0."""

    def __init__(
        self, stage: Stage, base_out: int, base_in: int, scale_out: int = 0, scale_in: int = 0
    ) -> None:
        self.out, self.into = StreamMap(stage.out), StreamMap(stage.into)
        self.base_out, self.base_in = base_out, base_in
        self.scale_out, self.scale_in = scale_out, scale_in
        self.seq = self.ack = self.sent = 0
        self.right_edge = self.widest = LARGEST  # what a kernel believes lies within windows

    # --- out ------------------------------------------------------------------------------------

    def egress(self, packet: Packet) -> Packet:
        offset = near(packet.seq - self.base_out, self.seq)
        if not packet.flags & RST:  # a RST may echo a number of a stranger's
            self.seq = offset
            self.sent = max(self.sent, offset + packet.sequence_bytes)
        if packet.flags & FIN:
            self.out.fin = offset + len(packet.payload)
        packet = self._acknowledged(packet) if packet.flags & ACK else packet
        start = self.out.wire_number(offset)
        urgent = packet.urgent
        if packet.flags & URG:
            urgent = min(LARGEST, self.out.wire_number(offset + urgent) - start)
        payload = self.out.expand(offset, packet.payload)
        return packet.but(seq=(start + self.base_out) % MODULUS, urgent=urgent, payload=payload)

    def _acknowledged(self, packet: Packet) -> Packet:
        offset = near(packet.ack - self.base_in, self.ack)
        if not packet.flags & RST:
            self.ack = offset
        if self.into.fin is not None and offset > self.into.fin + 1:
            self.into.fin = None
        room = packet.window << self.scale_out
        self.right_edge = max(self.right_edge, offset + room)
        options = bytearray(packet.options)
        for at in sack_places(packet.options):
            edge = near(int.from_bytes(options[at : at + 4]) - self.base_in, offset)
            options[at : at + 4] = ((self.into.wire_number(edge) + self.base_in) % MODULUS).to_bytes(4)
        return packet.but(
            ack=(self.into.wire_number(offset) + self.base_in) % MODULUS,
            window=self._window_out(offset, room, self.scale_out),
            options=bytes(options),
        )

    def _window_out(self, offset: int, room: int, scale: int) -> int:
        on_wire = self.into.wire(offset + room) - self.into.wire_number(offset)
        return min(LARGEST, -(-on_wire >> scale))

    # --- in -------------------------------------------------------------------------------------

    def ingress(self, packet: Packet) -> Packet:
        wire = near(packet.seq - self.base_in, self.into.wire_number(self.ack))
        bare = not packet.payload and not packet.flags & FIN
        offset = self.into.stream_number(wire) if bare else self.into.stream(wire)
        payload = self.into.extract(wire, packet.payload)
        urgent = packet.urgent
        if packet.flags & URG:
            urgent = self.into.stream(wire + urgent) - offset
        plausible = True
        if packet.flags & ACK:
            packet, acknowledged = self._acknowledging(packet)
            plausible = self.sent - 2 * self.widest <= acknowledged <= self.sent
        end = offset + len(payload)
        if plausible and self.ack - 1 <= end <= self.right_edge:
            self.widest = max(self.widest, packet.window << self.scale_in)
            self._end_of_stream(end, bool(packet.flags & FIN), bool(payload))
        return packet.but(seq=(offset + self.base_in) % MODULUS, urgent=urgent, payload=payload)

    def _end_of_stream(self, end: int, fin: bool, data: bool) -> None:
        """Believes a FIN until bytes come in that stand behind it."""
        if fin:
            self.into.fin = end
        elif data and self.into.fin is not None and end > self.into.fin:
            self.into.fin = None

    def _acknowledging(self, packet: Packet) -> tuple[Packet, int]:
        wire = near(packet.ack - self.base_out, self.out.wire_number(self.seq))
        offset = self.out.stream_number(wire)
        options = bytearray(packet.options)
        for at in sack_places(packet.options):
            edge = near(int.from_bytes(options[at : at + 4]) - self.base_out, wire)
            options[at : at + 4] = ((self.out.stream_number(edge) + self.base_out) % MODULUS).to_bytes(4)
        window = self._window_in(wire, offset, packet.window, self.scale_in)
        ack = (offset + self.base_out) % MODULUS
        return packet.but(ack=ack, window=window, options=bytes(options)), offset

    def _window_in(self, wire: int, offset: int, window: int, scale: int) -> int:
        right = self.out.stream(wire + (window << scale))
        return max(0, right - offset) >> scale


@dataclass
class Offer:
    """A SYN that came in."""

    isn: int
    data_bytes: int
    digests: tuple[int, int] | None
    scale: int | None

    def answered_by(self, ack: int) -> bool:
        return (ack - self.isn - 1) % MODULUS <= self.data_bytes


@dataclass
class Connection:
    """decided: whether the peer's chain fits is known; stages: None if it does not."""

    isn: int
    data_bytes: int = 0
    syns: int = 0
    offered: bool = False
    scale: int | None = None
    decided: bool = False
    stages: list[StageState] | None = None


class Host:
    """digests: of the chain, egress and ingress. mtu: customized packets that have outgrown it are cut."""

    def __init__(self, chain: Sequence[Stage], digests: tuple[int, int], mtu: int = 65535) -> None:
        self.chain, self.digests, self.mtu = list(chain), digests, mtu
        self.connections: dict[tuple, Connection] = {}
        self.offers: dict[tuple, Offer] = {}

    def egress(self, packet: bytes) -> list[bytes]:
        """What goes to the wire for a packet of the kernel's."""
        parsed = parse(packet)
        if parsed is None:
            return [packet]
        key = (*parsed.addresses, parsed.source_port, parsed.target_port)
        translate = self._synchronize_out if parsed.flags & SYN else self._translated_out
        out = translate(key, parsed)
        known = self.connections.get(key)
        pieces = cut(out, self.mtu) if known and known.stages is not None else [out]
        return [each.build() for each in pieces]

    def ingress(self, packet: bytes) -> list[bytes]:
        """What the kernel gets for a packet of the wire's."""
        parsed = parse(packet)
        if parsed is None:
            return [packet]
        key = (*parsed.addresses[::-1], parsed.target_port, parsed.source_port)
        if parsed.flags & SYN:
            return [self._synchronize_in(key, parsed).build()]
        connection = self.connections.get(key)
        for stage in reversed(connection.stages or [] if connection else []):
            parsed = stage.ingress(parsed)
        return [parsed.build()]

    # --- agreement ------------------------------------------------------------------------------

    def _synchronize_out(self, key: tuple, packet: Packet) -> Packet:
        known = self.connections.get(key)
        if known is None or known.isn != packet.seq:
            known = self.connections[key] = Connection(packet.seq)
        known.scale = scale_of(packet.options)
        if packet.flags & ACK:
            return self._answer(key, known, packet)
        known.syns += 1
        if has_room(packet) and known.syns <= OFFERS:
            known.offered = True
            packet = self._with_option(packet)
            room = self.mtu - len(packet.ip) - 20 - len(packet.options)
            packet = packet.but(payload=packet.payload[:room])  # the rest is what the peer does not take
        known.data_bytes = max(known.data_bytes, len(packet.payload))
        return packet

    def _answer(self, key: tuple, known: Connection, packet: Packet) -> Packet:
        if not known.decided:
            known.decided = True
            offer = self.offers.get(key)
            answers = offer and known.syns == 0 and offer.answered_by(packet.ack)
            if offer and answers and self._fits(offer.digests) and has_room(packet):
                self._start(known, packet.seq + 1, packet.ack, offer.scale)
        if known.stages is None:
            return packet
        window = packet.window
        for stage in known.stages:
            window = stage._window_out(0, window, 0)
        return self._with_option(packet.but(window=window))

    def _with_option(self, packet: Packet) -> Packet:
        options = packet.options
        at, mss = find(options, OPTION_MSS, 4), mss_of(options)
        if at is not None and mss is not None:
            options = options[: at + 2] + fitting(self.chain, mss).to_bytes(2) + options[at + 4 :]
        return packet.but(options=experiment(self.digests) + options)

    def _synchronize_in(self, key: tuple, packet: Packet) -> Packet:
        digests = experiment_of(packet.options)
        bare = packet.but(options=without_experiment(packet.options))
        if not packet.flags & ACK:
            self.offers[key] = Offer(packet.seq, len(packet.payload), digests, scale_of(packet.options))
            return bare
        known = self.connections.get(key)
        if known is None or (packet.ack - known.isn - 1) % MODULUS > known.data_bytes:
            return bare
        if not known.decided:
            known.decided = True
            if known.offered and self._fits(digests):
                self._start(known, packet.ack, packet.seq + 1, scale_of(packet.options))
        return bare.but(window=self._first_window(packet.window)) if known.stages else bare

    def _first_window(self, window: int) -> int:
        """A SYN's window, never scaled, is one of wire bytes."""
        for stage in reversed(self.chain):
            window = StageState(stage, 0, 0)._window_in(0, 0, window, 0)
        return window

    def _fits(self, digests: tuple[int, int] | None) -> bool:
        return digests == self.digests[::-1]

    def _start(self, known: Connection, base_out: int, base_in: int, scale_in: int | None) -> None:
        scales = (0, 0) if known.scale is None or scale_in is None else (known.scale, scale_in)
        known.stages = [
            StageState(each, base_out % MODULUS, base_in % MODULUS, *scales) for each in self.chain
        ]

    def _translated_out(self, key: tuple, packet: Packet) -> Packet:
        connection = self.connections.get(key)
        for stage in connection.stages or [] if connection else []:
            packet = stage.egress(packet)
        return packet


def fitting(chain: Sequence[Stage], wire_bytes: int) -> int:
    """How long the peer's segments may be, so that they fit when they come."""
    left = wire_bytes
    for stage in reversed(chain):
        growth, every = stage.into.growth
        if every:
            fits = [count for count in range(left + 1) if count + growth * -(-count // every) <= left]
            left = fits[-1]
    return max(left, min(wire_bytes, SMALLEST_MSS))


def has_room(packet: Packet) -> bool:
    return len(packet.options) + EXPERIMENT_BYTES <= MOST_OPTION_BYTES


def cut(packet: Packet, mtu: int) -> list[Packet]:
    """A packet as segments that fit: FIN and PSH go with the last, CWR with the first."""
    room = mtu - len(packet.ip) - 20 - len(packet.options)
    if len(packet.payload) <= room:
        return [packet]
    pieces = []
    for at in range(0, len(packet.payload), room):
        last, flags, urgent = at + room >= len(packet.payload), packet.flags, packet.urgent
        flags &= ~(0 if last else FIN | PSH) & ~(CWR if at else 0)
        if flags & URG:
            flags, urgent = (flags, urgent - at) if urgent > at else (flags & ~URG, 0)
        payload = packet.payload[at : at + room]
        seq = (packet.seq + at) % MODULUS
        pieces.append(packet.but(seq=seq, flags=flags, urgent=urgent, payload=payload))
    return pieces
