"""The two ends of fec on workers of their own, without a kernel: what goes in, and all that comes out."""

import random
import struct
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from layer45.chains import build_chain
from layer45.fastpath.chain import ClassTable
from layer45.fastpath.worker import Worker
from layer45.loader import load

from .conftest import policy_text
from .wire import MILLISECOND, datagram, is_sound, payload_of

PASS, REWRITTEN, DROP, HOLD = 1, 2, 3, 4
EGRESS, INGRESS = 0, 1
ID_BYTES = 6
K, M = 4, 2  # of an end for which nothing else is said
PIECES = K + M
LIMITS = ("max_held", "memory_bytes", "max_flows")


class Id(NamedTuple):
    sbn: int
    esi: int
    k: int

    @property
    def is_source(self) -> bool:
        return self.esi < self.k

    def __bytes__(self) -> bytes:
        return struct.pack("!IH", self.sbn % (1 << 24) << 8 | self.esi, self.k)


def id_of(payload: bytes) -> Id:
    word, k = struct.unpack("!IH", payload[-ID_BYTES:])
    return Id(word >> 8, word & 0xFF, k)


def marked(payload: bytes, sbn: int, esi: int, k: int) -> bytes:
    return payload + bytes(Id(sbn, esi, k))


def bare(payload: bytes) -> bytes:
    return payload[:-ID_BYTES]


def shifted(payload: bytes, blocks: int) -> bytes:
    """The same, numbered so many blocks higher."""
    sbn, esi, k = id_of(payload)
    return marked(bare(payload), sbn + blocks, esi, k)


def damaged(packet: bytes, at: int, mask: int = 0x40) -> bytes:
    """With a byte that is not what the checksum says; at: as for an index of the packet."""
    changed = bytearray(packet)
    changed[at] ^= mask
    return bytes(changed)


@dataclass(frozen=True)
class Delivery:
    """What a program gets, and the payload of the packet that it came in."""

    payload: bytes
    carrier: bytes


class End:
    """A worker with fec in its chain, and what stands `behind` it. After each step the books balance.

    delivered: on ingress what the program got. corrupt: what left with a wrong checksum, for the kernel to
    drop. sent: on egress what left.
    """

    def __init__(self, driver: Any, scratch: Path, direction: int, **parameters: Any) -> None:
        limits = {key: parameters.pop(key) for key in LIMITS if key in parameters}
        behind = parameters.pop("behind", [])
        (scratch / "policies").mkdir(parents=True)
        (scratch / "layer45.toml").write_text("")
        (scratch / "policies" / "test.toml").write_text(
            policy_text([{"module": "fec", **parameters}, *behind], "udp")
        )
        self.chain = build_chain(load(scratch).chains[0], workers=1)
        self.worker = Worker(**{"max_held": 64, "memory_bytes": 1 << 22, "udp_idle_s": 1000, **limits})
        self.worker.publish(ClassTable([self.chain]))
        self.driver = driver.Driver(self.worker)
        self.driver.rest()
        self.direction, self.now_ns = direction, 0
        self.delivered: list[Delivery] = []
        self.sent: list[bytes] = []
        self.corrupt: list[bytes] = []
        self.queued: list[bytes] = []
        self.waiting: set[int] = set()

    def put(self, *payloads: bytes, port: int = 5000) -> list[bytes]:
        """Of datagrams: what their program got, or what left."""
        before = len(self.got)
        for each in payloads:
            self.put_packet(datagram(each, port=port))
        return self.got[before:]

    def put_packet(self, packet: bytes, **flags: Any) -> int:
        """Its verdict."""
        number = len(self.queued)
        self.queued.append(payload_of(packet))
        self.waiting.add(number)
        verdict, after = self.driver.process(packet, self.direction, queue_id=number, **flags)
        if self.direction == INGRESS:
            self._look()  # what was held left before
        if verdict != HOLD:
            self._conclude(number, verdict, after)
        self._look()
        self._balance()
        return verdict

    def wait(self, ms: float) -> list[bytes]:
        before = len(self.got)
        self.now_ns += int(ms * MILLISECOND)
        self.driver.advance(self.now_ns)
        self._look()
        self._balance()
        return self.got[before:]

    def close(self) -> dict[str, int]:
        """Ends all flows; the counters that are not 0."""
        self.driver.close()
        self._look()
        self._balance()
        assert not self.waiting
        assert set(self.live.values()) == {0}
        return self.counted

    @property
    def got(self) -> list[bytes]:
        return self.sent if self.direction == EGRESS else [each.payload for each in self.delivered]

    @property
    def live(self) -> dict[str, int]:
        return dict(self.worker.live)

    @property
    def counted(self) -> dict[str, int]:
        instance = self.chain.counters()["instances"][0]
        return {name: value for name, value in instance["counters"].items() if value}

    def _conclude(self, number: int, verdict: int, packet: bytes) -> None:
        self.waiting.remove(number)  # KeyError: a second verdict
        assert verdict in (PASS, REWRITTEN, DROP)
        if verdict == DROP:
            return
        if self.direction == EGRESS:
            self.sent.append(payload_of(packet))
        elif is_sound(packet):
            self.delivered.append(Delivery(payload_of(packet), self.queued[number]))
        else:
            self.corrupt.append(payload_of(packet))

    def _look(self) -> None:
        for kind, number, verdict, packet in self.driver.events:
            if kind == "held":
                self._conclude(number, verdict, packet)
            elif self.direction == EGRESS:
                assert is_sound(packet)
                self.sent.append(payload_of(packet))
        self.driver.events.clear()

    def _balance(self) -> None:
        counters, ended = self.worker.counters(), ("passed", "rewritten", "dropped")
        assert counters["received"] == sum(counters[name] for name in ended) + counters["held"]
        assert counters["received"] == len(self.queued)
        assert counters["held"] == len(self.waiting)
        assert counters["not_owned"] == counters["unset_verdicts"] == 0


class Ends:
    """Makes ends."""

    def __init__(self, driver: Any, scratch: Path) -> None:
        self._driver, self._scratch, self._numbers = driver, scratch, count()

    def __call__(self, direction: int = INGRESS, **parameters: Any) -> End:
        scratch = self._scratch / str(next(self._numbers))
        sizes = {"source_symbols": K, "repair_symbols": M}
        return End(self._driver, scratch, direction, **{**sizes, **parameters})


def programme(blocks: int, seed: int = 1) -> list[bytes]:
    """Datagrams of a program, all different, of different lengths."""
    source = random.Random(seed)
    return [struct.pack("!HH", seed, at) + source.randbytes(at % 90) for at in range(blocks * K)]


def pieces(ends: Ends, payloads: list[bytes], first_sbn: int = 0) -> list[bytes]:
    """What leaves of them: K sources and M repairs a block, numbered from first_sbn on."""
    sender = ends(EGRESS)
    sender.put(*payloads)
    sender.close()
    return [shifted(each, first_sbn - id_of(sender.sent[0]).sbn) for each in sender.sent]


def block(row: list[bytes], number: int) -> list[bytes]:
    return row[number * PIECES : (number + 1) * PIECES]
