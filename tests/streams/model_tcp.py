"""A TCP endpoint that a test drives step by step, and that asserts what must hold of all it is sent.

Positions in the sequence space are absolute: 0 is the SYN, 1 + i is byte i of the stream, and the FIN stands
behind the last byte. An endpoint knows its peer's stream and peer, so that it sees what is wrong at once.
"""

import struct
from dataclasses import dataclass
from random import Random

from .packets import (
    ACK,
    FIN,
    MODULUS,
    OPTION_MSS,
    OPTION_SACK,
    OPTION_SACK_PERMITTED,
    OPTION_SCALE,
    OPTION_TIMESTAMPS,
    PSH,
    RST,
    SYN,
    URG,
    Packet,
    experiment_of,
    find,
    mss_of,
    near,
    sack_blocks,
    scale_of,
    timestamp_of,
)  # fmt: skip
from .spans import Spans

LARGEST = 0xFFFF


@dataclass(frozen=True)
class Profile:
    """What an endpoint offers and does."""

    isn: int = 1
    mss: int = 536
    scale: int | None = 7
    sack: bool = True
    timestamps: bool = True
    buffer_bytes: int = 4000
    early_bytes: int = 0  # Fast Open: of the stream, in the SYN
    accepts_early: float = 1.0  # how much of a peer's
    urgent: bool = False
    burst: int = 1  # segments of up to so many MSS
    ends: str = "fin"  # or "reset"


class Endpoint:
    """tolerant: strangers send too, so that what cannot be is ignored as a kernel does, and not a failure."""

    def __init__(self, ip: bytes, ports: tuple[int, int], stream: bytes, random: Random, profile: Profile):
        self.ip, self.ports, self.stream, self.random, self.profile = ip, ports, stream, random, profile
        self.peer: Endpoint = self
        self.state = "listen"
        self.tolerant = self.ignores_offers = False
        self.warped = 0
        # sender
        self.una = self.nxt = self.sent = 0
        self.edge, self.widest = 0, LARGEST
        self.peer_mss, self.peer_scale, self.sacked = 536, 0, Spans()
        self.urgent_marks: set[int] = set()
        self.stamps: set[int] = {0}
        # receiver
        self.peer_isn = 0
        self.rcv_nxt = self.told = self.consumed = 0
        self.got = Spans()
        self.offered, self.offers = 0, set[tuple[int, int]]()
        self.peer_fin: int | None = None
        self.recent: list[tuple[int, int]] = []
        self.reset = self.reset_sent = False
        self.scaling = self.sacking = self.stamping = False
        self.received: dict[int, int] = {}
        self.surprises = 0  # windows that are not exactly as the peer announced them

    # --- positions --------------------------------------------------------------------------------

    @property
    def end(self) -> int:
        """Behind the last byte: the FIN's place."""
        return 1 + self.warped + len(self.stream)

    def content(self, start: int, end: int) -> bytes:
        first = 1 + self.warped
        return bytes(self.stream[at - first] if at >= first else 0 for at in range(start, end))

    @property
    def finished(self) -> bool:
        if self.reset or (self.reset_sent and self.peer.reset):
            return True
        return self.una == self.end + 1 and self.peer_fin is not None and self.rcv_nxt == self.peer_fin + 1

    @property
    def received_stream(self) -> bytes:
        first = 1 + self.peer.warped
        return bytes(self.received[at] for at in range(first, first + len(self.peer.stream)))

    # --- opening ----------------------------------------------------------------------------------

    def connect(self) -> Packet:
        self.state = "syn_sent"
        return self._syn(SYN)

    def _syn(self, flags: int) -> Packet:
        again = self.nxt > 0 and self.random.random() < 0.7  # Linux leaves out the data then
        early = 0 if flags & ACK or again else min(self.profile.early_bytes, len(self.stream))
        payload = self.content(1, 1 + early)
        self.nxt = max(self.nxt, 1)
        self.sent = max(self.sent, 1 + early)
        window = min(self.profile.buffer_bytes, LARGEST)
        packet = Packet(
            self.ip, *self.ports, self.profile.isn % MODULUS, flags=flags, payload=payload,
            window=window, options=self._syn_options(flags),
        )  # fmt: skip
        if flags & ACK:
            packet = packet.but(ack=(self.rcv_nxt + self.peer_isn) % MODULUS)
        self.offered = max(self.offered, max(self.rcv_nxt, 1) + window)
        return packet

    def _syn_options(self, flags: int) -> bytes:
        profile, answer = self.profile, self.peer_isn is not None and flags & ACK
        options = struct.pack("!BBH", OPTION_MSS, 4, profile.mss)
        if profile.sack and (self.sacking or not answer):
            options += bytes([OPTION_SACK_PERMITTED, 2, 1, 1])
        if profile.timestamps and (self.stamping or not answer):
            options += self._stamp()
        if profile.scale is not None and (self.scaling or not answer):
            options += bytes([1, OPTION_SCALE, 3, profile.scale])
        return options

    def _stamp(self) -> bytes:
        value = max(self.stamps) + 1
        self.stamps.add(value)
        return struct.pack("!BBBBII", 1, 1, OPTION_TIMESTAMPS, 10, value, max(self.peer.stamps))

    def _hello(self, packet: Packet) -> None:
        """A SYN or SYN/ACK of the peer's."""
        self.peer_isn = packet.seq
        self.peer_mss = mss_of(packet.options) or 536
        scale = scale_of(packet.options)
        self.scaling = scale is not None and self.profile.scale is not None
        self.peer_scale = scale if self.scaling and scale is not None else 0
        self.sacking = self.profile.sack and find(packet.options, OPTION_SACK_PERMITTED, 2) is not None
        self.stamping = self.profile.timestamps and timestamp_of(packet.options) is not None
        self.rcv_nxt = self.consumed = max(self.rcv_nxt, 1)
        assert self.ignores_offers or experiment_of(packet.options) is None, (
            "the kernel must not see the offer"
        )

    def _receive_syn(self, packet: Packet) -> list[Packet]:
        if self.state == "established" or (self.state == "syn_received" and packet.seq != self.peer_isn):
            return [self._ack()]  # RFC 5961
        if packet.flags & ACK and self.state == "listen":
            return []
        if packet.flags & ACK and not 1 <= near(packet.ack - self.profile.isn, 1) <= self.sent:
            assert self.tolerant, "a SYN/ACK of another SYN"
            return []
        first = self.state == "listen"
        self._hello(packet)
        if packet.flags & ACK:
            self._acknowledged(packet)
            self.state = "established"
            return [self._ack()]
        self.edge = max(self.edge, 1 + packet.window)
        self.state = "syn_received"
        early = int(len(packet.payload) * self.profile.accepts_early)
        if first and early:
            self._take(1, packet.payload[:early], False)
        return [self._syn(SYN | ACK)]

    # --- sending ----------------------------------------------------------------------------------

    def act(self) -> list[Packet]:
        """Something that an endpoint may do now."""
        if self.state == "syn_sent":
            return [self._syn(SYN)]
        if self.state == "syn_received":
            return [self._syn(SYN | ACK)]
        if self.state != "established" or self.reset:
            return []
        deeds = [self._send, self._send, self._resend, self._keep_alive, self._read, self._read]
        return self.random.choice(deeds)()

    def _largest(self) -> int:
        blocks = min(len(self.recent), 3 if self.stamping else 4) if self.sacking else 0
        most = min(self.peer_mss, self.profile.mss) - 12 * self.stamping - (4 + 8 * blocks if blocks else 0)
        return max(1, self.random.choice([most, most, self.random.randint(1, most)]) * self.profile.burst)

    def _send(self) -> list[Packet]:
        if self.profile.ends == "reset" and self.una == self.end and self.rcv_nxt >= self.peer.end:
            self.reset_sent = True
            return [self._segment(self.nxt, self.nxt, flags=RST | ACK)]
        if self.nxt > self.end or self.nxt >= self.edge:
            return []
        end = min(self.nxt + self._largest(), self.end, self.edge)
        fin = (
            end == self.end and end < self.edge and self.profile.ends == "fin" and self.random.random() < 0.7
        )
        packet = self._segment(self.nxt, end, fin)
        self.nxt = end + fin
        self.sent = max(self.sent, self.nxt)
        return [packet]

    def _resend(self) -> list[Packet]:
        """Any part of what is not acknowledged, cut as it was not cut before."""
        if self.una >= self.nxt:
            return []
        last = min(self.nxt, self.end)
        start = self.una if self.random.random() < 0.7 else self.random.randint(self.una, last)
        end = min(start + self._largest(), last)
        fin = self.nxt > self.end and end == self.end
        return [self._segment(min(start, end), end, fin)] if end > start or fin else []

    def _keep_alive(self) -> list[Packet]:
        """One number in front of what is acknowledged; with a byte that the receiver knows, or none.
        Finds out about a closed window too."""
        start = self.una - 1
        idle = self.una == self.nxt and self.una <= self.end
        length = self.random.randint(0, 1) if start > self.warped or start == 0 else 0
        return [self._segment(start, start + length)] if idle else [self._ack()]

    def _read(self) -> list[Packet]:
        if self.consumed == self.rcv_nxt:
            return []
        self.consumed = self.random.choice([self.rcv_nxt, self.random.randint(self.consumed, self.rcv_nxt)])
        return [self._ack()]

    def _ack(self) -> Packet:
        return self._segment(self.nxt, self.nxt)

    def _segment(self, start: int, end: int, fin: bool = False, flags: int = ACK) -> Packet:
        units = self._window()
        flags |= (FIN if fin else 0) | (PSH if end > start and self.random.random() < 0.5 else 0)
        packet = Packet(
            self.ip, *self.ports, (start + self.profile.isn) % MODULUS,
            (self.rcv_nxt + self.peer_isn) % MODULUS, flags, units,
            options=self._options(), payload=self.content(start, end),
        )  # fmt: skip
        if self.profile.urgent and end > start > 0 and self.random.random() < 0.3:
            ahead = self.random.randint(1, end - start)
            self.urgent_marks.add(start + ahead)
            packet = packet.but(flags=packet.flags | URG, urgent=ahead)
        self.told = self.rcv_nxt
        return packet

    def _window(self) -> int:
        scale = (self.profile.scale or 0) if self.scaling else 0
        right = max(self.consumed + self.profile.buffer_bytes, self.offered)
        units = min(LARGEST, (right - self.rcv_nxt) >> scale)
        self.offered = max(self.offered, self.rcv_nxt + (units << scale))
        self.offers.add((self.rcv_nxt, units))
        return units

    def _options(self) -> bytes:
        options = self._stamp() if self.stamping else b""
        blocks = self.recent[: 3 if self.stamping else 4] if self.sacking else []
        if blocks:
            edges = [(edge + self.peer_isn) % MODULUS for block in blocks for edge in block]
            options += struct.pack(f"!BBBB{len(edges)}I", 1, 1, OPTION_SACK, 2 + 4 * len(edges), *edges)
        if self.recent and self.recent[0] not in self.got.above(self.rcv_nxt):
            self.recent.pop(0)  # a D-SACK is said once
        return options

    # --- receiving --------------------------------------------------------------------------------

    def receive(self, packet: Packet) -> list[Packet]:
        """Answers."""
        if packet.flags & SYN:
            return self._receive_syn(packet)
        if self.state in ("listen", "syn_sent"):
            return []
        start = near(packet.seq - self.peer_isn, self.rcv_nxt)
        end = start + packet.sequence_bytes
        if end < self.told or start > max(self.offered, self.rcv_nxt):
            return [] if packet.flags & RST else self._refuse(packet, start, end)
        if packet.flags & RST:
            return self._receive_reset(start)
        if not packet.flags & ACK or not self._acknowledged(packet):
            return []
        return self._receive_data(packet, start)

    def _refuse(self, packet: Packet, start: int, end: int) -> list[Packet]:
        if not self.tolerant:
            assert start <= self.offered, f"{start} is outside the window that ends at {self.offered}"
            self._check_content(packet, start)
        if start < self.rcv_nxt and packet.payload and self.sacking:
            self.recent = [(start, end), *self.got.above(self.rcv_nxt)] if start > 0 else self.recent
        return [self._ack()]

    def _receive_reset(self, start: int) -> list[Packet]:
        if start == self.rcv_nxt:
            self.reset = True
            return []
        if not self.tolerant:
            assert start <= self.peer.nxt and start > self.rcv_nxt, f"RST at {start}, not {self.rcv_nxt}"
        return [self._ack()]

    def _acknowledged(self, packet: Packet) -> bool:
        """Whether the acknowledgement is one to go by."""
        ack = near(packet.ack - self.profile.isn, self.una)
        if ack > self.sent:
            assert self.tolerant, f"{ack} acknowledged, {self.sent} sent"
            return False
        if self.tolerant and ack < self.una - self.widest:
            return False
        if packet.flags & SYN:
            self.edge = max(self.edge, ack + packet.window)
        elif not self.tolerant:
            self._check_acknowledgement(packet, ack)
        self.widest = max(self.widest, packet.window << self.peer_scale)
        if ack >= self.una and not packet.flags & SYN:
            self.edge = max(self.edge, ack + (packet.window << self.peer_scale))
        self.una = max(self.una, ack)
        self.nxt = max(self.nxt, self.una)
        self.state = "established" if ack >= 1 and self.state == "syn_received" else self.state
        return True

    def _check_acknowledgement(self, packet: Packet, ack: int) -> None:
        peer = self.peer
        assert ack <= peer.rcv_nxt, f"{ack} acknowledged, peer has {peer.rcv_nxt}"
        assert ack + (packet.window << self.peer_scale) <= peer.offered
        exact = (ack, packet.window) in peer.offers
        self.surprises += not exact and ack <= self.end  # nothing is sent behind a FIN
        for left, right in sack_blocks(packet.options):
            start = near(left - self.profile.isn, ack)
            length = (right - left) % MODULUS
            whole = start + length <= peer.rcv_nxt or peer.got.covers(start, start + length)
            assert length > 0 and whole, f"SACK of [{start}, {start + length}): not received"
            self.sacked.add(start, start + length)
        stamp = timestamp_of(packet.options)
        assert not self.stamping or (stamp and stamp[0] in peer.stamps and stamp[1] in self.stamps)

    def _check_content(self, packet: Packet, start: int) -> None:
        skip = max(0, 1 + self.peer.warped - start)
        end = start + len(packet.payload)
        assert end <= self.peer.end, f"[{start}, {end}) is behind the end at {self.peer.end}"
        want = self.peer.content(start + skip, end)
        assert packet.payload[skip:] == want, f"[{start}, {end}) is not what was sent"
        assert not packet.flags & FIN or end == self.peer.end, f"FIN at {end}, not {self.peer.end}"
        if packet.flags & URG:
            assert start + packet.urgent in self.peer.urgent_marks, f"urgent at {start + packet.urgent}"

    def _receive_data(self, packet: Packet, start: int) -> list[Packet]:
        if not packet.sequence_bytes:
            return [self._ack()] if start < self.rcv_nxt and start < self.told else []
        if not self.tolerant:
            self._check_content(packet, start)
            assert start + packet.sequence_bytes <= self.offered + 1, (
                f"data up to {start + packet.sequence_bytes}, window up to {self.offered}"
            )
        news = self._take(start, packet.payload, bool(packet.flags & FIN))
        return [self._ack()] if not news or self.got.above(self.rcv_nxt) or self.random.random() < 0.7 else []

    def _take(self, start: int, payload: bytes, fin: bool) -> bool:
        """Whether there was something new in it."""
        end = start + len(payload)
        if fin:
            self.peer_fin = end
        end += fin
        old = self.got.overlap(start, end, self.rcv_nxt)
        news = end > self.rcv_nxt and not self.got.covers(max(start, self.rcv_nxt), end)
        for at, byte in enumerate(payload, start):
            self.received.setdefault(at, byte)
        self.got.add(max(start, 1), end)
        self.rcv_nxt = self.got.reach(self.rcv_nxt)
        above = self.got.above(self.rcv_nxt)
        own = [block for block in above if block[0] <= start < block[1]]
        self.recent = [*([old] if old else []), *own, *(block for block in above if block not in own)]
        return news

    # --- far into the stream ----------------------------------------------------------------------

    def warp(self, sent: int, received: int) -> None:
        """As if so many bytes had been sent and received before the first."""
        self.warped += sent
        self.una += sent
        self.nxt += sent
        self.sent += sent
        self.edge += sent
        for name in ("rcv_nxt", "told", "consumed", "offered"):
            setattr(self, name, getattr(self, name) + received)
        self.got, self.recent = Spans(), []
        self.got.add(1, self.rcv_nxt)
        self.received = {
            at + received: byte for at, byte in self.received.items() if at + received < self.rcv_nxt
        }
        self.urgent_marks = {at + sent for at in self.urgent_marks}
        self.peer_fin = None if self.peer_fin is None else self.peer_fin + received
        self.offers = {(ack + received, units) for ack, units in self.offers}
