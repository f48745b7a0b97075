"""Messages of an NFLOG group, packet by packet; and what becomes of modules that do more than look."""

import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from layer45.fastpath.chain import Chain, ClassTable
from layer45.fastpath.worker import Worker

from ..modules.wire import datagram, segment
from .compiled import compiled
from .scripted import Services, scripted

PASS, REWRITTEN, DROP, HOLD, ERROR = 1, 2, 3, 4, 5
EDITED, GSO, TRUNCATED = 1, 16, 32
LOCAL_IN, LOCAL_OUT, POST_ROUTING = 1, 3, 4
PACKET_HDR, MARK, HWADDR, PAYLOAD, PREFIX, SEQ = 1, 2, 8, 9, 10, 12  # nfnetlink_log.h
LOG_PACKET, ERROR_MESSAGE, DONE = 4 << 8, 2, 3


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value.ljust(-(-len(value) // 4) * 4, b"\0")


def copy_of(packet: bytes, sequence: int | None = 0, hook: int = LOCAL_OUT, mark: int = 1) -> bytes:
    """A packet as the kernel puts it into a message, in the order in which it does."""
    parts = [attribute(PACKET_HDR, struct.pack("!HBx", 0x0800, hook)), attribute(PREFIX, b"\0")]
    parts += [attribute(MARK, struct.pack("!I", mark))] if mark else []
    parts += [attribute(HWADDR, bytes(12))]
    parts += [attribute(SEQ, struct.pack("!I", sequence))] if sequence is not None else []
    return message(b"".join([*parts, attribute(PAYLOAD, packet)]))


def message(content: bytes, kind: int = LOG_PACKET, length: int | None = None) -> bytes:
    count = 20 + len(content) if length is None else length
    return struct.pack("=IHHII", count, kind, 0, 0, 0) + struct.pack("!BBH", 2, 0, 4500) + content


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(Path(__file__).parent / "copies_reader", tmp_path_factory.mktemp("copies_reader"))


class Watched:
    """A worker with one chain, of a module that answers as it is told, and remembers what it saw."""

    def __init__(self, reader: Any, answers: Iterable[int] = (), looks_only: bool = True) -> None:
        self.saw: list[tuple[int, int, int, int]] = []
        left = iter(answers)

        def see(host: Services, packet: Any) -> int:
            seen = packet.contents
            self.saw.append((seen.direction, seen.wire_bytes, seen.tail - seen.data, seen.flags))
            assert (seen.head, seen.end) == (seen.data, seen.tail)
            return next(left, PASS)

        self.worker = Worker()
        self.chain = Chain(1, "test", [scripted(see)], transports=("udp", "tcp"), whole_payload=False,
                           looks_only=looks_only)  # fmt: skip
        self.worker.publish(ClassTable([self.chain]))
        self.reader = reader.Reader(self.worker)

    def counted(self) -> dict[str, int]:
        found = dict(self.worker.counters())
        assert found["received"] == found["passed"]
        return {name: value for name, value in found.items() if value}


def test_every_packet_of_a_message_is_looked_at(reader: Any) -> None:
    watched = Watched(reader)
    copies = [copy_of(datagram(b"x" * at), at, LOCAL_IN if at % 2 else LOCAL_OUT) for at in range(40)]
    watched.reader.look(b"".join(copies) + message(b"", DONE))
    assert watched.saw == [(at % 2, 28 + at, 28 + at, 0) for at in range(40)]
    assert watched.counted()["received"] == 40
    assert "copies_lost" not in watched.counted()


def test_copies_that_are_missing_are_counted(reader: Any) -> None:
    """At the beginning, within a message, between two, and where the numbers begin anew."""
    watched = Watched(reader)
    packet = datagram(b"x")
    for numbers in ((2, 3), (5,), (10, 14), (0xFFFFFFFF,)):
        watched.reader.look(b"".join(copy_of(packet, number) for number in numbers))
    assert watched.counted()["copies_lost"] == 2 + 1 + 4 + 3 + 0xFFFFFFFF - 15
    watched.reader.look(copy_of(packet, 1))
    assert watched.counted()["copies_lost"] == 10 + 0xFFFFFFFF - 15 + 1
    watched.reader.look(copy_of(packet, None))
    assert watched.counted()["received"] == 8


@pytest.mark.parametrize(
    ("packet", "wire_bytes", "flags"),
    [
        (datagram(b"x" * 1400)[:192], 1428, TRUNCATED),
        (datagram(b"x" * 1400, 6)[:192], 1448, TRUNCATED),
        (segment(b"x" * 60_000, 0)[:192], 60_040, TRUNCATED),
        (segment(b"x" * 100, 0), 140, 0),
        (segment(b"x" * 300, 0)[:2] + b"\0\0" + segment(b"x" * 300, 0)[4:192], 65_536, GSO | TRUNCATED),
        (segment(b"x" * 300, 0, 6)[:4] + b"\0\0" + segment(b"x" * 300, 0, 6)[6:192], 65_536, GSO | TRUNCATED),
    ],
    ids=["ipv4", "ipv6", "super-packet", "whole", "big ipv4", "big ipv6"],
)
def test_the_length_is_that_of_the_packet(reader: Any, packet: bytes, wire_bytes: int, flags: int) -> None:
    watched = Watched(reader)
    watched.reader.look(copy_of(packet))
    assert watched.saw == [(0, wire_bytes, len(packet), flags)]
    assert watched.counted()["received_bytes"] == wire_bytes


def test_a_jumbogram_says_its_length_itself(reader: Any) -> None:
    """RFC 2675: a hop-by-hop header with the jumbo payload option, as Linux writes it for BIG TCP."""
    plain = segment(b"x" * 300, 0, 6)
    option = bytes([6, 0, 0xC2, 4]) + struct.pack("!I", 180_028)
    packet = plain[:4] + b"\0\0\0" + plain[7:40] + option + plain[40:]
    watched = Watched(reader)
    watched.reader.look(copy_of(packet[:192]))
    assert watched.saw == [(0, 180_068, 192, GSO | TRUNCATED)]


def test_what_is_no_packet_of_ours_is_counted_and_let_alone(reader: Any) -> None:
    watched = Watched(reader)
    packet = datagram(b"x")
    watched.reader.look(copy_of(packet, 0, POST_ROUTING) + copy_of(b"", 1) + copy_of(packet, 2, mark=0))
    without = attribute(PACKET_HDR, struct.pack("!HBx", 0x0800, LOCAL_OUT))
    watched.reader.look(copy_of(b"\x45", 3) + message(without))
    found = watched.counted()
    assert (found["received"], found["malformed"], found["no_class"]) == (5, 2, 1)
    assert found["short"] == 2
    assert watched.saw == []


def test_error_messages_are_counted_and_acknowledgements_are_not(reader: Any) -> None:
    watched = Watched(reader)
    for number in (-16, 0):
        watched.reader.look(struct.pack("=IHHIIi", 36, ERROR_MESSAGE, 0, 0, 0, number) + bytes(16))
    assert watched.counted() == {"kernel_errors": 1}


def test_messages_that_are_cut_or_lie_end_where_they_end(reader: Any) -> None:
    """Whatever the bytes are: nothing outside of them is read, and counters balance."""
    chance = random.Random(1)
    watched = Watched(reader)
    whole = b"".join(copy_of(datagram(b"y" * at), at) for at in range(8))
    for end in range(len(whole)):
        watched.reader.look(whole[:end])
        watched.reader.look(whole, end)
    watched.reader.look(message(b"", length=4) + whole)
    watched.reader.look(message(b"", length=1 << 31) + whole)
    for _ in range(3000):
        changed = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            changed[chance.randrange(len(changed))] = chance.getrandbits(8)
        watched.reader.look(bytes(changed))
    watched.reader.look(whole, 1 << 20)
    watched.counted()


def test_a_module_that_does_more_than_look_is_counted_as_failing(reader: Any) -> None:
    """Whatever it says, and though its packet is cut; the packet has gone on."""
    watched = Watched(reader, [PASS, REWRITTEN, DROP, HOLD, ERROR, 0, 77])
    for at in range(7):
        watched.reader.look(copy_of(datagram(b"x" * 300)[:192], at))
    found = watched.counted()
    assert (found["failed_open"], found["module_errors"], found["unset_verdicts"]) == (6, 1, 5)
    assert watched.chain.faults() == [{"errors": 1, "unset": 5, "flows_refused": 0}]
    assert watched.chain.counters()["egress_failed"] == 6


def test_what_it_changes_is_a_failure_too(reader: Any) -> None:
    watched = Watched(reader)

    def change(host: Services, packet: Any) -> int:
        packet.contents.flags |= EDITED
        return PASS

    watched.worker.publish(ClassTable([Chain(1, "test", [scripted(change)], looks_only=True)]))
    watched.reader.look(copy_of(datagram(b"x")))
    assert watched.counted()["failed_open"] == 1


def test_it_cannot_take_packets(reader: Any) -> None:
    watched, got = Watched(reader), []

    def take(host: Services, packet: Any) -> int:
        got.extend((bool(host.hold(packet)), bool(host.clone(packet))))
        return HOLD

    chain = Chain(1, "test", [scripted(take)], whole_payload=False, looks_only=True)
    watched.worker.publish(ClassTable([chain]))
    watched.reader.look(copy_of(datagram(b"x")))
    assert got == [False, False]
    found = watched.counted()
    assert (found["not_owned"], found["unset_verdicts"], found["failed_open"]) == (2, 1, 1)
    assert watched.worker.live["owned"] == 0


def test_a_disabled_chain_is_not_run(reader: Any) -> None:
    watched = Watched(reader)
    watched.reader.look(copy_of(datagram(b"x"), 0))
    watched.chain.disabled = True
    watched.reader.look(copy_of(datagram(b"x"), 1))
    assert len(watched.saw) == 1
    assert watched.counted()["disabled_passed"] == 1
