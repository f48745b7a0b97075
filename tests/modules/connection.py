"""Two hosts of one TCP connection, each a worker with a chain: what a kernel sends is what the other gets.

kernel a ──▶ a's chain, egress ──▶ wire ──▶ b's chain, ingress ──▶ kernel b, and back
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layer45.chain_properties import InstancePlan
from layer45.chains import build_chain, instance_spec
from layer45.config import Settings
from layer45.fastpath.chain import ClassTable
from layer45.fastpath.stream_view import StreamView
from layer45.fastpath.worker import Worker
from layer45.loader import load
from layer45.modulefolder import find_modules
from layer45.problems import Place, Problems

from .conftest import Entry, policy_text
from .wire import ADDRESSES, is_sound

PASS, REWRITTEN, DROP = 1, 2, 3
EGRESS, INGRESS = 0, 1
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
LINUX_SYN = bytes.fromhex("020405b4 0402080a0000000100000000 01030307")
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
MTU = 1500


@dataclass
class Seen:
    """A packet, by the fields that matter here."""

    flags: int
    sequence: int
    acknowledgement: int
    options: bytes
    payload: bytes
    bytes_: int


def seen(packet: bytes) -> Seen:
    at = 20 if packet[0] >> 4 == 4 else 40
    header_bytes = (packet[at + 12] >> 4) * 4
    return Seen(
        packet[at + 13],
        int.from_bytes(packet[at + 4 : at + 8]),
        int.from_bytes(packet[at + 8 : at + 12]),
        packet[at + 20 : at + header_bytes],
        packet[at + header_bytes :],
        len(packet),
    )


class Host:
    """A worker with a chain for the one connection, or, with an empty chain, a host without Layer 4.5."""

    def __init__(self, driver: Any, scratch: Path, chain: list[Entry], reference: bool = False) -> None:
        self.worker = Worker(max_held=8)
        self.chain: Any = None
        if chain:
            (scratch / "policies").mkdir(parents=True)
            (scratch / "layer45.toml").write_text("")
            (scratch / "policies" / "test.toml").write_text(policy_text(chain, "tcp"))
            self.chain = build_chain(load(scratch).chains[0], workers=1, reference=reference)
            self.worker.publish(ClassTable([self.chain]))
        self.driver = driver.Driver(self.worker)
        self.driver.rest()

    def through(self, packet: bytes, direction: int, mtu: int = 0, flags: int = 0) -> list[bytes]:
        """What leaves of a packet: nothing, or it, and what was cut off behind it."""
        if self.chain is None:
            return [packet]
        verdict, after = self.driver.process(packet, direction, mtu=mtu, flags=flags)
        cut, self.driver.events = [each[3] for each in self.driver.events], []
        assert verdict in (PASS, REWRITTEN, DROP)
        out = {PASS: [packet], REWRITTEN: [after], DROP: []}[verdict] + cut
        assert all(is_sound(each) for each in out)
        return out

    def counted(self, place: int = 0) -> dict[str, int]:
        """An instance's counters that are not 0."""
        counters = self.chain.counters()["instances"][place]["counters"]
        return {name: value for name, value in counters.items() if value}

    @property
    def engine(self) -> dict[str, int]:
        return {name: value for name, value in self.worker.counters().items() if value}


def connected(
    driver: Any, scratch: Path, chain: list[Entry], other: list[Entry] | None = None
) -> "Connection":
    """An open connection whose ends run the chain, or the server another; they agreed."""
    connection = Connection(
        Host(driver, scratch / "a", chain), Host(driver, scratch / "b", chain if other is None else other)
    )
    assert connection.open()
    for host in (connection.a, connection.b):
        assert host.engine["connections_customized"] == 1
    return connection


def values_of(entry: Entry) -> dict[str, object]:
    """All parameters of a chain's entry, validated."""
    module = find_modules(Settings()).modules[entry["module"]]
    problems = Problems()
    given = {key: value for key, value in entry.items() if key != "module"}
    values = module.manifest.read_values(given, Place(Path("test")), problems)
    problems.raise_any()
    return values


def reference_of(chain: list[Entry]) -> Any:
    """The reference of the one module of a chain; its counters in `counted`."""
    counted: Counter[str] = Counter()
    reference = find_modules(Settings()).modules[chain[0]["module"]].load_reference()
    module = reference(values_of(chain[0]), lambda name, more=1: counted.update({name: more}))
    module.counted = counted
    return module


def _plan_of(chain: list[Entry]) -> InstancePlan:
    module = find_modules(Settings()).modules[chain[0]["module"]]
    return InstancePlan(module, values_of(chain[0]), frozenset(("egress", "ingress")))


def growth_of(chain: list[Entry]) -> tuple[int, int]:
    """What the manifest says: so many bytes at most for each begun so many."""
    return _plan_of(chain).stream_growth


def view_of(chain: list[Entry]) -> StreamView:
    """The compiled stream functions of the one module of a chain."""
    return StreamView(instance_spec(_plan_of(chain)))


def on_wire(module: Any, offset: int, payload: bytes) -> bytes:
    """Stream bytes from `offset` on, with what a stream module puts in front of each."""
    parts = []
    for at, byte in enumerate(payload, offset):
        run_bytes = module.inserted(at + 1) - module.inserted(at) if hasattr(module, "inserted") else 0
        changed = module.change("egress", at, bytes([byte])) if hasattr(module, "change") else bytes([byte])
        parts += [module.fill(at, 0, run_bytes) if run_bytes else b"", changed]
    return b"".join(parts)


@dataclass
class Connection:
    """Hosts a, which connects, and b. wire: all that was on it, as (from a, packet)."""

    a: Host
    b: Host
    version: int = 4
    isn: tuple[int, int] = (1000, 0xFFFFFF00)
    wire: list[tuple[bool, bytes]] = field(default_factory=list)

    def packet(
        self,
        from_a: bool,
        flags: int,
        offset: int = 0,
        payload: bytes = b"",
        options: bytes = b"",
        ack: int = 0,
    ) -> bytes:
        """As a kernel makes it: byte `offset` of its stream on; ack: of the other one's."""
        from scapy.layers.inet import IP, TCP
        from scapy.layers.inet6 import IPv6

        ends, isns = ADDRESSES[self.version], self.isn
        if not from_a:
            ends, isns = ends[::-1], isns[::-1]
        head = (IP if self.version == 4 else IPv6)(src=ends[0], dst=ends[1])
        ports = {"sport": 4000, "dport": 5000} if from_a else {"sport": 5000, "dport": 4000}
        sequence = (isns[0] + (0 if flags & SYN else 1) + offset) % (1 << 32)
        acknowledged = (isns[1] + 1 + ack) % (1 << 32) if flags & ACK else 0
        tcp = TCP(
            **ports, seq=sequence, ack=acknowledged, flags=flags, window=60000, dataofs=5 + len(options) // 4
        )
        return bytes(head / tcp / (options + payload))

    def send(
        self, from_a: bool, flags: int, offset: int = 0, payload: bytes = b"", **more: Any
    ) -> list[Seen]:
        """What the other kernel gets."""
        sender, receiver = (self.a, self.b) if from_a else (self.b, self.a)
        sent = sender.through(self.packet(from_a, flags, offset, payload, **more), EGRESS, MTU)
        self.wire += [(from_a, each) for each in sent]
        return [seen(each) for packet in sent for each in receiver.through(packet, INGRESS)]

    def open(self, options: bytes = LINUX_SYN) -> bool:
        """The three packets of a handshake; whether all arrived."""
        return (
            bool(self.send(True, SYN, options=options))
            and bool(self.send(False, SYN | ACK, options=options))
            and bool(self.send(True, ACK, options=TIMESTAMPS))
        )

    @property
    def stream(self) -> int:
        """The number of the stream from a to b."""
        return (self.isn[0] + 1) << 32 | (self.isn[1] + 1)

    @property
    def on_wire(self) -> list[Seen]:
        return [seen(packet) for _, packet in self.wire]
