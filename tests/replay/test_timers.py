"""The capture's clock: clones and held packets leave at their own time, whatever the timestamps are."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.fastpath.capture import Reader, Writer
from layer45.fastpath.chain import Chain, ClassTable, InstanceSpec
from layer45.fastpath.match import Match
from layer45.fastpath.replay import Replay
from layer45.fastpath.worker import Worker
from layer45.rules.diversion import Selector

from .captures import (
    DUPLICATE,
    NANOSECONDS,
    START_NS,
    TAG,
    Record,
    ethernet,
    read,
    udp,
    write,
)
from .conftest import Send
from .holding import CAPSULE

MS = 1_000_000


def at_ms(moment: float, payload: bytes, sport: int = 40000) -> Record:
    frame = ethernet(udp(payload, sport=sport))
    return Record(START_NS + int(moment * MS), frame, len(frame))


def times_ms(path: Path) -> list[float]:
    return [(record.time_ns - START_NS) / MS for record in read(path)]


def test_clones_have_their_deadlines_as_timestamps(tmp_path: Path, send: Send) -> None:
    records = [at_ms(0, b"a"), at_ms(1, b"b"), at_ms(2.5, b"c"), at_ms(100, b"d")]
    source = write(tmp_path / "in.pcap", records, magic=NANOSECONDS)
    summary = send(source, tmp_path / "out.pcap", DUPLICATE)
    assert times_ms(tmp_path / "out.pcap") == [0, 1, 2.5, 2.5, 3.5, 5, 5, 6, 7.5, 100, 102.5, 105]
    assert (summary.read, summary.injected, summary.written) == (4, 8, 12)


def test_clones_have_the_link_header_of_their_packet(tmp_path: Path, send: Send) -> None:
    tagged = [ethernet(udp(b"x", sport=1000 + vlan), [0x8100] * vlan) for vlan in range(4)]
    source = write(tmp_path / "in.pcap", tagged)
    send(source, tmp_path / "out.pcap", DUPLICATE)
    records = read(tmp_path / "out.pcap")
    for vlan, frame in enumerate(tagged):
        header = frame[: 14 + 4 * vlan]
        assert sum(each.frame.startswith(header + b"\x45") for each in records) == 3
    send(tmp_path / "out.pcap", tmp_path / "back.pcap", DUPLICATE, direction="ingress")
    back = [each.frame for each in read(tmp_path / "back.pcap")]
    assert back == [frame[: 14 + 4 * vlan + 29] for vlan, frame in enumerate(tagged)]  # without the padding


def test_a_clone_runs_through_the_rest_of_the_chain(tmp_path: Path, send: Send) -> None:
    source = write(tmp_path / "in.pcap", [at_ms(0, b"x" * 40), at_ms(50, b"y" * 40)])
    away = send(source, tmp_path / "out.pcap", DUPLICATE, TAG)
    assert away.instances[1]["counters"]["tagged"] == 6
    back = send(tmp_path / "out.pcap", tmp_path / "back.pcap", DUPLICATE, TAG, direction="ingress")
    assert back.dropped == 4
    assert (tmp_path / "back.pcap").read_bytes() == source.read_bytes()


class Holder:
    """A replay through the holding module alone."""

    def __init__(self, folder: Path, max_held: int = 64) -> None:
        self.folder = folder
        self.max_held = max_held

    def __call__(self, records: list[Record]) -> list[Record]:
        source = write(self.folder / "in.pcap", records, magic=NANOSECONDS)
        chain = Chain(1, "hold", [InstanceSpec("hold", CAPSULE)], transports=("udp",))
        worker = Worker(max_held=self.max_held)
        worker.publish(ClassTable([chain]))
        with source.open("rb") as given, (self.folder / "out.pcap").open("wb") as taken:
            reader = Reader(given.fileno())
            writer = Writer(taken.fileno(), reader.link_type, reader.snaplen, reader.nanoseconds)
            self.counters = self._drive(Replay(reader, writer, worker, Match(Selector()), 1, False), writer)
            writer.close()
        assert set(worker.live.values()) == {0}
        assert worker.counters()["held"] == 0
        return read(self.folder / "out.pcap")

    def _drive(self, replay: Replay, writer: Writer) -> dict[str, int]:
        while replay.run(3):
            pass
        replay.settle()
        writer.finish()
        counters = replay.counters()
        replay.close()
        assert counters["read"] == writer.records + counters["dropped"]
        return counters


@pytest.fixture
def hold(tmp_path: Path) -> Holder:
    return Holder(tmp_path)


def test_a_held_packet_leaves_as_it_came_padding_and_all(hold: Holder) -> None:
    records = [at_ms(0, b"p\x05first"), at_ms(1, b"p\x01"), at_ms(9, b"n\0now"), at_ms(10, b"p\0")]
    assert [len(each.frame) for each in records] == [60] * 4
    late = [(2, records[1]), (5, records[0]), (9, records[2]), (10, records[3])]
    assert hold(records) == [Record(START_NS + moment * MS, each.frame, each.len) for moment, each in late]


def test_a_held_packet_can_be_rewritten_or_dropped(hold: Holder) -> None:
    records = [at_ms(0, b"r\x05first"), at_ms(1, b"d\x09")]
    (out,) = hold(records)
    assert (out.time_ns - START_NS, len(out.frame)) == (5 * MS, 14 + 28 + 7)
    assert out.frame.endswith(b"r\x05Rirst")
    assert hold.counters["dropped"] == 1


def test_what_a_module_forgets_leaves_as_it_came(hold: Holder) -> None:
    records = [at_ms(0, b"f\0first"), at_ms(1, b"p\x02"), at_ms(2, b"f\0")]
    assert sorted(each.frame for each in hold(records)) == sorted(each.frame for each in records)


kinds = st.sampled_from([b"p", b"r", b"d", b"f", b"n"])
held = st.builds(
    lambda kind, after, moment, sport: at_ms(moment, kind + bytes([after]) + b"payload", sport),
    kinds, st.integers(0, 40), st.integers(0, 60), st.integers(1, 4),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(held, max_size=40), st.sampled_from([0, 1, 5, 64]))
def test_no_held_packet_is_lost_or_changed(tmp_path: Path, records: list[Record], max_held: int) -> None:
    out = Holder(tmp_path, max_held)(records)
    expected = sorted(_payload(each) for each in records)
    got = sorted(_payload(each) for each in out)
    if max_held == 64:
        assert got == [each for each in expected if each[:1] != b"d"]
    assert not set(got) - set(expected)


def _payload(record: Record) -> bytes:
    return record.frame[42:51].replace(b"Rayload", b"payload")


@pytest.mark.parametrize("seconds", [1, 3600, 86400 * 365, 0xFFFFFFFF - 1_700_000_000])
def test_gaps_of_any_length(tmp_path: Path, send: Send, seconds: int) -> None:
    records = [at_ms(0, b"a"), at_ms(1, b"b"), at_ms(seconds * 1000, b"c"), at_ms(seconds * 1000 + 1, b"d")]
    source = write(tmp_path / "in.pcap", records)
    send(source, tmp_path / "out.pcap", DUPLICATE)
    times = times_ms(tmp_path / "out.pcap")
    assert times == sorted(times)
    assert len(times) == 12


def test_time_that_runs_backwards(tmp_path: Path, send: Send) -> None:
    records = [at_ms(moment, b"x", sport=port) for port, moment in enumerate((50, 10, 60, 0, 55), 1000)]
    source = write(tmp_path / "in.pcap", records)
    send(source, tmp_path / "out.pcap", TAG)
    assert times_ms(tmp_path / "out.pcap") == [50, 10, 60, 0, 55]
    summary = send(source, tmp_path / "out.pcap", DUPLICATE)
    assert summary.written == 15


def test_nonsense_times_stay_what_they_are(tmp_path: Path, send: Send) -> None:
    source = write(tmp_path / "in.pcap", [at_ms(0, b"x"), at_ms(1, b"y")])
    content = bytearray(source.read_bytes())
    struct.pack_into("=II", content, 24, 0xFFFFFFFF, 0xFFFFFFFF)
    source.write_bytes(content)
    send(source, tmp_path / "out.pcap")
    assert (tmp_path / "out.pcap").read_bytes() == source.read_bytes()
    assert send(source, tmp_path / "out.pcap", DUPLICATE).written == 6


def test_the_same_seed_gives_the_same_output(tmp_path: Path, send: Send) -> None:
    source = write(tmp_path / "in.pcap", [at_ms(at, b"x", 1000 + at % 7) for at in range(200)])
    outputs = {}
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        send(source, tmp_path / name, DUPLICATE, seed=seed)
        outputs[name] = (tmp_path / name).read_bytes()
    assert outputs["one"] == outputs["again"] != outputs["other"]
