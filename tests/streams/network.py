"""Two endpoints, each behind a host with a chain, and between them a wire that does all that wires do."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from .conntrack import Conntrack
from .model_tcp import Endpoint
from .packets import FIN, MODULUS, PSH, SYN, URG, is_sound, parse


class Ends(Protocol):
    """A host: the reference or the compiled engine."""

    def egress(self, packet: bytes) -> list[bytes]: ...

    def ingress(self, packet: bytes) -> list[bytes]: ...


class Straight:
    """A host that runs no policy."""

    def egress(self, packet: bytes) -> list[bytes]:
        return [packet]

    def ingress(self, packet: bytes) -> list[bytes]:
        return [packet]


@dataclass(frozen=True)
class Weather:
    """What happens to packets on the wire, each with a probability."""

    loss: float = 0.0
    copies: float = 0.0
    reorder: float = 0.0
    cuts: float = 0.0
    joins: float = 0.0
    distance: int = 3  # how far a packet falls back


CALM = Weather()


@dataclass
class Network:
    """sides: (endpoint, host) left and right. stranger: what others send to a side, each step."""

    sides: list[tuple[Endpoint, Ends]]
    random: Random
    weather: Weather = CALM
    mtu: int = 1500
    stranger: Callable[["Network", int], bytes | None] | None = None
    watched: bool = True
    queues: list[list[bytes]] = field(default_factory=lambda: [[], []])
    watchers: list[Conntrack] = field(default_factory=lambda: [Conntrack(), Conntrack()])
    last: list[bytes] = field(default_factory=lambda: [b"", b""])  # what arrived at each side
    steps: int = 0

    def __post_init__(self) -> None:
        left, right = (endpoint for endpoint, _ in self.sides)
        left.peer, right.peer = right, left

    def open(self, both: bool = False) -> None:
        """Until both ends have agreed."""
        self.send(0, [self.sides[0][0].connect()])
        if both:
            self.send(1, [self.sides[1][0].connect()])
        self._until(lambda: all(endpoint.state == "established" for endpoint, _ in self.sides))

    def run(self, rough_steps: int = 1500, limit: int = 40_000) -> None:
        """Until both streams are across and closed. The wire is rough for the first steps only."""
        self._until(lambda: self.steps > rough_steps or self._finished(), limit)
        self.weather = CALM
        self._until(self._finished, limit)
        for endpoint, _ in self.sides:
            assert endpoint.received_stream == endpoint.peer.stream

    def warp(self, offsets: tuple[int, int], step: int) -> None:
        """As if each side had sent so many bytes before. Engines learn of it as they would: by packets of
        their kernel, never more than 2^31 apart."""
        self.watched = False
        left, right = (endpoint for endpoint, _ in self.sides)
        while left.warped < offsets[0] or right.warped < offsets[1]:
            one = min(step, offsets[0] - left.warped)
            other = min(step, offsets[1] - right.warped)
            left.warp(one, other)
            right.warp(other, one)
            for endpoint, host in self.sides:
                host.egress(endpoint._ack().build())
        self.queues = [[], []]

    def _finished(self) -> bool:
        return all(endpoint.finished for endpoint, _ in self.sides)

    def _until(self, reached: Callable[[], bool], limit: int = 40_000) -> None:
        first = self.steps
        while not reached():
            self.step()
            assert self.steps - first < limit, f"stalled: {self.describe()}"

    def describe(self) -> str:
        return " | ".join(
            f"{e.state} una {e.una} nxt {e.nxt} end {e.end} edge {e.edge} rcv {e.rcv_nxt} fin {e.peer_fin}"
            for e, _ in self.sides
        )

    def step(self) -> None:
        self.steps += 1
        side = self.random.randrange(2)
        if self.stranger and (spoofed := self.stranger(self, side)) is not None:
            self._arrive(side, spoofed, watched=False)
        if self.queues[side] and self.random.random() < 0.8:
            self._deliver(side)
        else:
            self.send(side, self.sides[side][0].act())

    def send(self, side: int, packets: list) -> None:
        """From an endpoint through its host to the wire."""
        for packet in packets:
            came = packet.build()
            for out in self.sides[side][1].egress(came):
                assert is_sound(out), "a packet that left has a wrong length or checksum"
                assert len(out) <= self.mtu or out == came, f"{len(out)} bytes on a wire of {self.mtu}"
                self._watch(side, out, "out")
                self.queues[side].append(out)

    def _deliver(self, side: int) -> None:
        queue, weather, chance = self.queues[side], self.weather, self.random.random
        packet = queue.pop(0)
        if chance() < weather.reorder and queue:
            queue.insert(self.random.randint(1, min(len(queue), weather.distance)), packet)
            return
        if chance() < weather.loss:
            return
        if chance() < weather.copies:
            queue.insert(self.random.randint(0, min(len(queue), weather.distance)), packet)
        if chance() < weather.joins and queue and (joined := join(packet, queue[0])):
            packet = joined
            queue.pop(0)
        pieces = split(packet, self.random) if chance() < weather.cuts else [packet]
        for piece in pieces:
            self._arrive(1 - side, piece)

    def _arrive(self, side: int, packet: bytes, watched: bool = True) -> None:
        endpoint, host = self.sides[side]
        if watched:
            self.last[side] = packet
            self._watch(side, packet, "in")
        for bare in host.ingress(packet):
            assert is_sound(bare), "a packet that came in has a wrong length or checksum"
            parsed = parse(bare)
            assert parsed
            self.send(side, endpoint.receive(parsed))

    def _watch(self, side: int, packet: bytes, way: str) -> None:
        if self.watched:
            complaint = self.watchers[side].see(packet, way)
            late = way == "in" and complaint and "under" in complaint  # what the wire kept back may be
            assert not complaint or late, complaint


def split(packet: bytes, random: Random) -> list[bytes]:
    """One segment as two, as a device that segments does."""
    whole = parse(packet)
    if whole is None or len(whole.payload) < 2 or whole.flags & (SYN | URG):
        return [packet]
    at = random.randint(1, len(whole.payload) - 1)
    first = whole.but(payload=whole.payload[:at], flags=whole.flags & ~(FIN | PSH))
    return [first.build(), whole.but(payload=whole.payload[at:], seq=(whole.seq + at) % MODULUS).build()]


def join(packet: bytes, after: bytes) -> bytes | None:
    """Two segments as one, as a device that merges does."""
    one, two = parse(packet), parse(after)
    if one is None or two is None or (one.flags | two.flags) & (SYN | URG) or one.flags & FIN:
        return None
    follows = one.payload and two.payload and (one.seq + len(one.payload)) % MODULUS == two.seq
    if not follows or (one.ack, one.window, one.options) != (two.ack, two.window, two.options):
        return None
    return one.but(payload=one.payload + two.payload, flags=one.flags | two.flags).build()
