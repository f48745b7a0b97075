"""stream_tag: tags where the reference says, where ends agreed; a kernel gets what the other one sent."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .connection import (
    ACK,
    EGRESS,
    FIN,
    INGRESS,
    LINUX_SYN,
    MTU,
    RST,
    SYN,
    TIMESTAMPS,
    Connection,
    Host,
    connected,
    on_wire,
    reference_of,
    seen,
    view_of,
)

TAG = {"module": "stream_tag", "id": "host-7", "every_bytes": 20, "tag_bytes": 8}
GSO = 16
STREAM = random.Random(1).randbytes(100_000)
ANY_INPUT = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("from_a", [True, False], ids=["a", "b"])
def test_every_length_and_place(driver: Any, tmp_path: Path, from_a: bool) -> None:
    connection, module = connected(driver, tmp_path, [TAG]), reference_of([TAG])
    for offset in range(45):
        for count in range(70):
            payload = STREAM[offset : offset + count]
            (got,) = connection.send(from_a, ACK, offset, payload, options=TIMESTAMPS)
            wire = connection.on_wire[-1]
            assert wire.payload == on_wire(module, offset, payload)
            assert (wire.sequence - got.sequence) % (1 << 32) == module.inserted(offset)
            assert got.payload == payload


@given(st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 1400)), max_size=12), st.integers(16, 3000))
@ANY_INPUT
def test_any_segments_with_any_layout(
    driver: Any, tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, int]], every: int
) -> None:
    """In any order, again and again, as super-packets too."""
    chain = [{**TAG, "every_bytes": every}]
    connection, module = connected(driver, tmp_path_factory.mktemp("ends"), chain), reference_of(chain)
    for offset, count in cuts:
        payload = STREAM[offset : offset + count]
        packet = connection.packet(True, ACK, offset, payload)
        (out,) = connection.a.through(packet, EGRESS, MTU, flags=GSO)
        assert seen(out).payload == on_wire(module, offset, payload)
        assert [seen(each).payload for each in connection.b.through(out, INGRESS)] == [payload]


def test_a_lost_piece_of_a_tag_alone_is_not_missed(driver: Any, tmp_path: Path) -> None:
    """The pieces on each side of it are all of the stream, and the acknowledgement says that all came."""
    connection = connected(driver, tmp_path, [TAG])
    (out,) = connection.a.through(connection.packet(True, ACK, 0, STREAM[:40]), EGRESS)
    pieces = [part_of(connection, out, first, last) for first, last in ((0, 28), (28, 36), (36, 56))]
    front, tag_alone, behind = (connection.b.through(each, INGRESS) for each in pieces)
    assert [seen(each).payload for each in (*front, *behind)] == [STREAM[:20], STREAM[20:40]]
    assert seen(behind[0]).sequence == seen(front[0]).sequence + 20
    assert [seen(each).payload for each in tag_alone] == [b""]
    (got,) = connection.send(False, ACK, ack=40)
    assert connection.on_wire[-1].acknowledgement == got.acknowledgement + 16
    assert got.acknowledgement == 1001 + 40


def part_of(connection: Connection, packet: bytes, first: int, last: int) -> bytes:
    """Payload bytes [first, last) of a packet of a's, as a packet of its own."""
    whole = seen(packet)
    return connection.packet(True, ACK, whole.sequence - 1001 + first, whole.payload[first:last])


def test_counters(driver: Any, tmp_path: Path) -> None:
    connection = connected(driver, tmp_path, [TAG])
    for _ in range(2):
        connection.send(True, ACK, 0, STREAM[:45])
    connection.send(True, FIN | ACK, 45)
    assert connection.a.counted() == {"tags": 6}
    assert connection.b.counted() == {"stripped": 6}


@pytest.mark.parametrize("expect", ["host-7", "host", "host-7\0\0", "host-7, cut to 8 bytes"[:6]])
def test_an_expected_identity_is_a_beginning(driver: Any, tmp_path: Path, expect: str) -> None:
    connection = connected(driver, tmp_path, [TAG], [{**TAG, "expect": expect}])
    assert connection.send(True, ACK, 0, STREAM[:99])[0].payload == STREAM[:99]


def test_another_identity_gets_nothing_through(driver: Any, tmp_path: Path) -> None:
    """Not even where only a part of the tag came, if it is the part that differs."""
    connection = connected(driver, tmp_path, [TAG], [{**TAG, "expect": "host-9"}])
    assert connection.send(True, ACK, 0, STREAM[:10]) == []
    assert connection.send(True, ACK, 5, STREAM[5:10])[0].payload == STREAM[5:10]
    (out,) = connection.a.through(connection.packet(True, ACK, 20, STREAM[20:40]), EGRESS)
    assert connection.b.through(part_of(connection, out, 0, 5), INGRESS)
    assert connection.b.through(part_of(connection, out, 5, 28), INGRESS) == []
    assert connection.b.through(part_of(connection, out, 6, 28), INGRESS)
    assert connection.b.counted()["wrong_identity"] == 2


@pytest.mark.parametrize("customized", ["a", "b"])
@pytest.mark.parametrize("unmarked", ["pass", "drop"])
def test_a_peer_without_the_policy(driver: Any, tmp_path: Path, customized: str, unmarked: str) -> None:
    """Never sees a tag: the connection goes on as it is, or is refused, at once where our kernel asked."""
    chain = [{**TAG, "unmarked": unmarked}]
    hosts = [Host(driver, tmp_path / side, chain if side == customized else []) for side in "ab"]
    connection = Connection(*hosts)
    if unmarked == "pass":
        assert connection.open()
        assert connection.send(True, ACK, 0, STREAM[:50])[0].payload == STREAM[:50]
        assert connection.on_wire[-1].payload == STREAM[:50]
        assert hosts["ab".index(customized)].engine["connections_alone"] == 1
        return
    answered = connection.send(True, SYN, options=LINUX_SYN)
    if customized == "a":
        answered = connection.send(False, SYN | ACK, options=LINUX_SYN)
        assert [each.flags & (RST | SYN) for each in answered] == [RST]
    else:
        assert answered == []
    assert hosts["ab".index(customized)].engine["connections_refused"] == 1


@pytest.mark.parametrize("other", [{"every_bytes": 21}, {"tag_bytes": 9}], ids=lambda each: next(iter(each)))
def test_another_layout_is_no_peer(driver: Any, tmp_path: Path, other: dict[str, Any]) -> None:
    connection = Connection(
        Host(driver, tmp_path / "a", [TAG]), Host(driver, tmp_path / "b", [{**TAG, **other}])
    )
    assert connection.open()
    assert connection.send(True, ACK, 0, STREAM[:50])[0].payload == STREAM[:50]
    assert connection.on_wire[-1].payload == STREAM[:50]


def test_with_identities_in_options(driver: Any, tmp_path: Path) -> None:
    """A segment module in front of it and one behind, for which a SYN has no room any more."""
    option = {"module": "option_tag", "on": "all", "id": "x"}
    chain = [{**option, "exid": 1}, TAG, {**option, "exid": 2}]
    connection, module = connected(driver, tmp_path, chain), reference_of([TAG])
    (got,) = connection.send(True, ACK, 10, STREAM[10:900])
    assert got.payload == STREAM[10:900] and got.options == b""
    wire = connection.on_wire[-1]
    assert len(wire.options) == 24 and wire.payload.startswith(on_wire(module, 10, STREAM[10:600]))
    for host, counter in ((connection.a, "tagged"), (connection.b, "stripped")):
        assert (host.counted(0)[counter], host.counted(2)[counter]) == (3, 2)


def test_strict_is_what_unmarked_says() -> None:
    for unmarked, strict in (("pass", False), ("drop", True)):
        chain = [{**TAG, "unmarked": unmarked}]
        assert view_of(chain).strict == reference_of(chain).strict == strict
