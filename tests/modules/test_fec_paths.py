"""fec over paths that are late, slow or break bits: what arrives is right, in time, and not dear."""

import random
from collections import Counter

import pytest

from .conftest import Passage, Road
from .lengths import payloads
from .wire import HEADER_BYTES, MILLISECOND, UDP, Record, datagram, is_sound, payload_of

START_NS = 10**12
TICK_NS = 1 << 17  # of the engine's timers
FEC = {"module": "fec", "source_symbols": 10, "repair_symbols": 3}


def spaced(packets: list[bytes], spacing_ns: float) -> list[Record]:
    return [Record(packet, START_NS + int(at * spacing_ns)) for at, packet in enumerate(packets)]


def over(road: Road, sent: list[Record], fec: dict[str, object], **network: object) -> Passage:
    """Out, over a network, and in."""
    out = road([fec], "egress", sent)
    wire = road([{"module": "impair", "seed": 3, **network}], "egress", out.records)
    return road([fec], "ingress", wire.records)


# --- broken bits ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("loss_percent", [0, 5])
@pytest.mark.parametrize("corrupt_percent", [1, 10, 100])
def test_nothing_wrong_is_delivered(
    road: Road, version: int, loss_percent: int, corrupt_percent: int
) -> None:
    """A flipped bit anywhere behind the UDP header, also in ids and symbols, the checksum as it was: what
    goes on with a wrong one the kernel drops. What is sound is as it was sent; others may be recovered."""
    chance = random.Random(45)
    sent = [datagram(each, version) for each in payloads([chance.randrange(1400) for _ in range(3000)])]
    back = over(
        road,
        spaced(sent, MILLISECOND / 10),
        FEC,
        loss_percent=loss_percent,
        corrupt_percent=corrupt_percent,
    )
    received = Counter(payload_of(each) for each in back.packets if is_sound(each))
    assert received <= Counter(map(payload_of, sent))
    counted = back.counted()
    assert counted["corrupt"] > 10
    whole = sum(received.values())
    print(f"{loss_percent} % lost, {corrupt_percent} % corrupt: {whole} of 3000 delivered; {counted}")
    least = {1: 2990, 10: 2850, 100: 0}[corrupt_percent]
    assert whole >= least
    assert corrupt_percent == 100 or counted["recovered"] > 20


def test_broken_ids_do_no_harm(road: Road) -> None:
    """Datagrams of the shortest kind, so that every second flipped bit is one of the id."""
    sent = [datagram(at.to_bytes(4, "big")) for at in range(20_000)]
    back = over(road, spaced(sent, MILLISECOND / 10), FEC, corrupt_percent=3)
    received = [payload_of(each) for each in back.packets if is_sound(each)]
    assert len(set(received)) == len(received)
    assert set(received) <= {payload_of(each) for each in sent}
    assert len(received) >= 19_990
    assert back.counted().get("restarts", 0) == 0


# --- in time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("interleave", [1, 4])
@pytest.mark.parametrize("transit_ms", [0, 25])
@pytest.mark.parametrize("spacing_ms", [0.1, 1, 3, 20, 300])
def test_recovered_datagrams_come_within_the_deadline_and_the_transit(
    road: Road, spacing_ms: float, transit_ms: int, interleave: int
) -> None:
    """From one datagram in a block to full blocks. Blocks may end a timer's tick late."""
    deadline_ms = 8
    fec = {**FEC, "interleave": interleave, "deadline_ms": deadline_ms}
    packets = [datagram(at.to_bytes(4, "big") + bytes(100)) for at in range(2000)]
    sent = spaced(packets, spacing_ms * MILLISECOND)
    back = over(road, sent, fec, delay_ms=transit_ms, loss_percent=5)
    took_ns = [
        record.time_ns - sent[int.from_bytes(record.payload[:4], "big")].time_ns for record in back.records
    ]
    late = [each for each in took_ns if each > transit_ms * MILLISECOND]
    print(f"every {spacing_ms} ms: the latest took {max(took_ns) / MILLISECOND:.3f} ms")
    assert len(late) > 50
    assert max(took_ns) <= (deadline_ms + transit_ms) * MILLISECOND + TICK_NS
    assert back.counted()["recovered"] > 80


# --- not dear ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("length", [60, 100, 160, 200, 300, 400, 500, 700, 990, 1000, 1200, 1400, 1472])
def test_a_flow_of_one_megabit_a_second_at_most_doubles(road: Road, length: int, version: int) -> None:
    """With the parameters' defaults: payload to payload, and packet to packet."""
    count = 2000
    sent = [datagram(bytes(length), version) for _ in range(count)]
    out = road([{"module": "fec"}], "egress", spaced(sent, length * 8 * 1000))
    payload = sum(map(len, out.payloads)) / (count * length)
    packet = sum(map(len, out.packets)) / (count * (length + HEADER_BYTES[version, UDP]))
    print(f"{length} bytes: {payload:.3f} of payload, {packet:.3f} of packets")
    assert payload <= 2.05 and packet <= 2.05
    counted = out.counted()
    assert counted["source_bytes"] == count * length
    assert counted["source_bytes"] + counted["added_bytes"] == sum(map(len, out.payloads))
