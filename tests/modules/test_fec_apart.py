"""fec with wire = "rfc6865": repairs on a port of their own, ids in front of their symbols."""

import struct
from collections import Counter

import pytest

from layer45.errors import Layer45Error

from .conftest import Road
from .lengths import payloads
from .wire import datagram, is_sound

SOURCE_PORT, REPAIR_PORT = 5000, 7000
STRICT = {
    "module": "fec", "source_symbols": 4, "repair_symbols": 2,
    "wire": "rfc6865", "repair_port": REPAIR_PORT, "source_port": SOURCE_PORT,
}  # fmt: skip


def ports(packet: bytes) -> tuple[int, int]:
    return struct.unpack_from("!HH", packet, 40 if packet[0] >> 4 == 6 else 20)


def sent(version: int) -> list[bytes]:
    return [datagram(each, version, SOURCE_PORT) for each in payloads([0, 1, 500, 20, 7, 7, 1400, 300])]


@pytest.mark.parametrize("version", [4, 6])
def test_repairs_leave_for_their_port_with_the_id_in_front(road: Road, version: int) -> None:
    out = road([STRICT], "egress", sent(version))
    plain = road([{**STRICT, "wire": "trailer"}], "egress", sent(version))
    apart = [each for each in out.records if ports(each.packet) == (4000, REPAIR_PORT)]
    within = [each.payload for each in plain.records if each.payload[-3] >= 4]
    assert all(map(is_sound, out.packets))
    assert [each.payload[6:] + each.payload[:6] for each in apart] == within
    assert len(apart) == 4


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("lost", [[], [0], [1, 3], [2, 7], [0, 1, 6, 7]])
def test_they_find_their_flow(road: Road, version: int, lost: list[int]) -> None:
    out = road([STRICT], "egress", sent(version))
    sources = [each for each in out.packets if ports(each)[1] == SOURCE_PORT]
    repairs = [each for each in out.packets if ports(each)[1] == REPAIR_PORT]
    arrived = [each for at, each in enumerate(sources) if at not in lost] + repairs
    back = road([STRICT], "ingress", arrived)
    assert Counter(each.payload for each in back.records) == Counter(
        payloads([0, 1, 500, 20, 7, 7, 1400, 300])
    )
    assert {ports(each) for each in back.packets} == {(4000, SOURCE_PORT)}
    assert all(map(is_sound, back.packets))
    assert set(back.live.values()) == {0}
    assert back.counted()["repairs_arrived"] == 4


def test_without_their_flow_they_end(road: Road) -> None:
    out = road([STRICT], "egress", sent(4))
    repairs = [each for each in out.packets if ports(each)[1] == REPAIR_PORT]
    assert road([STRICT], "ingress", repairs).records == []
    strangers = [datagram(each, 4, REPAIR_PORT) for each in (b"", b"hello, world")]
    passage = road([STRICT], "ingress", strangers)
    assert (passage.records, passage.counted()["invalid"]) == ([], 2)


def test_it_needs_a_port(road: Road) -> None:
    with pytest.raises(Layer45Error, match="repair_port: expected a port"):
        road([{**STRICT, "repair_port": 0}], "egress", sent(4))
