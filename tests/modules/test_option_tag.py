"""option_tag: identities in headers, and in no others; what the kernels get is what the kernels sent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.errors import Layer45Error
from layer45.loader import ChainPlan, load
from layer45.modules.option_tag.reference import find, option, walk

from .conftest import Entry, Passage, Road, policy_text
from .connection import (
    ACK,
    EGRESS,
    FIN,
    INGRESS,
    LINUX_SYN,
    MTU,
    PSH,
    RST,
    SYN,
    TIMESTAMPS,
    Connection,
    Host,
    seen,
)
from .wire import Record, is_sound, options_of, segment

A = {"module": "option_tag", "id": "host-a"}
B = {"module": "option_tag", "id": "host-b"}
OURS = option(b"host-a\0\0", 253, 0x4C54)
THEIRS = option(b"host-b\0\0", 253, 0x4C54)
GSO = 16
SACKS = bytes.fromhex("0101051a") + bytes(24)
ANY_INPUT = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=[False, True], ids=["hot", "reference"])
def connect(request: pytest.FixtureRequest, driver: Any, tmp_path: Path) -> Callable[..., Connection]:
    """A connection between hosts with these chains."""

    def make(a: list[Entry], b: list[Entry], **more: Any) -> Connection:
        return Connection(
            Host(driver, tmp_path / "a", a, request.param),
            Host(driver, tmp_path / "b", b, request.param),
            **more,
        )

    return make


def both(a: Entry, b: Entry, **shared: Any) -> tuple[list[Entry], list[Entry]]:
    return [{**a, **shared}], [{**b, **shared}]


def talk(connection: Connection) -> int:
    """Segments of all kinds, both ways; how many. Each arrives as it was sent."""
    kinds = [
        (True, ACK, TIMESTAMPS, b"request"), (False, ACK | PSH, TIMESTAMPS, bytes(1412 - 15)),
        (True, ACK, b"", b""), (False, FIN | ACK, b"", b"x"), (True, FIN | ACK, TIMESTAMPS, b""),
        (True, RST, b"", b""),
    ]  # fmt: skip
    for from_a, flags, options, payload in kinds:
        (got,) = connection.send(from_a, flags, 0, payload, options=options)
        assert (got.flags, got.options, got.payload) == (flags, options, payload)
    return len(kinds)


@pytest.mark.parametrize("version", [4, 6])
def test_on_syn(connect: Callable[..., Connection], version: int) -> None:
    connection = connect(*both(A, B), version=version)
    assert connection.open()
    talk(connection)
    syn, answer, *others = connection.on_wire
    assert syn.options[: len(OURS)] == OURS and answer.options[: len(THEIRS)] == THEIRS
    assert not [each for each in others if find(each.options, 253, 0x4C54)]
    for host in (connection.a, connection.b):
        assert host.counted() == {"tagged": 1, "stripped": 1}
        assert host.engine["connections_customized"] == 1


@pytest.mark.parametrize("version", [4, 6])
def test_on_all(connect: Callable[..., Connection], version: int) -> None:
    connection = connect(*both(A, B, on="all"), version=version)
    assert connection.open()
    count = talk(connection) + 3
    assert len(connection.wire) == count
    for (from_a, _), each in zip(connection.wire, connection.on_wire, strict=True):
        assert each.options.startswith(OURS if from_a else THEIRS)
        assert each.bytes_ <= MTU
    counted = connection.a.counted(), connection.b.counted()
    assert counted[0]["tagged"] == counted[1]["stripped"] == 6
    assert counted[1]["tagged"] == counted[0]["stripped"] == 3


def test_kernels_see_the_syns_of_each_other_with_another_mss_only(connect: Callable[..., Connection]) -> None:
    connection = connect(*both(A, B, on="all"))
    lowered = bytes.fromhex("0204") + (1460 - 15).to_bytes(2, "big") + LINUX_SYN[4:]
    assert connection.send(True, SYN, options=LINUX_SYN)[0].options == lowered
    assert connection.send(False, SYN | ACK, options=LINUX_SYN)[0].options == lowered


@pytest.mark.parametrize("on", ["syn", "all"])
@pytest.mark.parametrize("customized", ["a", "b"])
def test_a_peer_without_the_policy_gets_options_in_syns_only(
    connect: Callable[..., Connection], on: str, customized: str
) -> None:
    """It is told nothing else, and is not asked for an identity behind the SYNs."""
    chain = [{**A, "on": on}]
    connection = connect(chain if customized == "a" else [], chain if customized == "b" else [])
    assert connection.open()
    talk(connection)
    tagged = [bool(find(each.options, 253, 0x4C54)) for each in connection.on_wire]
    assert tagged == [customized == "a", customized == "b", *[False] * 7]
    host = connection.a if customized == "a" else connection.b
    assert host.counted() == {"tagged": 1, "unmarked": 1}
    assert host.engine["connections_alone"] == 1


@pytest.mark.parametrize("key, value", [("on", "syn"), ("id_bytes", 7), ("kind", 254), ("exid", 7)])
def test_peers_that_differ_in_what_they_share_are_left_alone(
    connect: Callable[..., Connection], key: str, value: Any
) -> None:
    connection = connect([{**A, "on": "all"}], [{**B, "on": "all", key: value}])
    assert connection.open()
    talk(connection)
    assert connection.a.engine["connections_alone"] == connection.b.engine["connections_alone"] == 1
    assert connection.a.counted()["tagged"] == 1


def test_an_unexpected_identity_is_dropped(connect: Callable[..., Connection]) -> None:
    connection = connect([A], [{**B, "expect": "host-c"}])
    assert connection.send(True, SYN, options=LINUX_SYN) == []
    assert connection.b.counted() == {"wrong_identity": 1}


@pytest.mark.parametrize("customized", ["a", "b"])
def test_unmarked_drop_wants_an_identity_of_strangers(
    connect: Callable[..., Connection], customized: str
) -> None:
    chain = [{**A, "unmarked": "drop"}]
    connection = connect(chain if customized == "a" else [], chain if customized == "b" else [])
    assert not connection.open()
    host = connection.a if customized == "a" else connection.b
    assert host.counted()["unmarked"] == 1


def test_segments_that_had_no_room_are_not_dropped(connect: Callable[..., Connection]) -> None:
    """A receiver with holes fills its header with SACK blocks; a peer that drops the unmarked takes them."""
    connection = connect(*both(A, B, on="all", unmarked="drop"))
    assert connection.open()
    assert connection.send(True, ACK, options=TIMESTAMPS + SACKS)[0].options == TIMESTAMPS + SACKS
    assert connection.a.counted()["no_room"] == 1
    assert "unmarked" not in connection.b.counted()
    bare = connection.packet(True, ACK, payload=b"forged", options=TIMESTAMPS)
    assert connection.b.through(bare, INGRESS) == []
    assert connection.b.counted()["unmarked"] == 1


SIGNED = {"MD5": bytes([19, 18, *bytes(16), 1, 1]), "AO": bytes([29, 16, *bytes(14)])}


@pytest.mark.parametrize("signature", SIGNED)
def test_signed_connections_stay_as_they_are(connect: Callable[..., Connection], signature: str) -> None:
    options = LINUX_SYN[:4] + SIGNED[signature]
    connection = connect(*both(A, B, on="all"))
    assert connection.open(options)
    assert [each.options for each in connection.on_wire] == [options, options, TIMESTAMPS]
    assert connection.a.counted() == {"no_room": 1, "unmarked": 1}


def test_the_fourth_syn_without_an_answer_goes_bare(connect: Callable[..., Connection]) -> None:
    connection = connect([A], [])
    for _ in range(5):
        connection.send(True, SYN, options=LINUX_SYN)
    assert [each.options == LINUX_SYN for each in connection.on_wire] == [False] * 3 + [True] * 2
    assert connection.a.counted() == {"tagged": 3, "no_room": 2}


@pytest.mark.parametrize("payload_bytes", [1, 1432, 60000])
def test_super_packets_grow_and_come_back(connect: Callable[..., Connection], payload_bytes: int) -> None:
    connection = connect(*both(A, B, on="all"))
    assert connection.open()
    packet = connection.packet(True, ACK, payload=bytes(payload_bytes), options=TIMESTAMPS)
    (out,) = connection.a.through(packet, EGRESS, MTU, flags=GSO)
    assert seen(out).options == OURS + TIMESTAMPS and len(out) == len(packet) + len(OURS)
    assert connection.b.through(out, INGRESS) == [packet]


@given(
    options=st.lists(
        st.one_of(
            st.sampled_from([OURS, OURS[:9], option(b"host-a\0", 253, 0x4C54), b"\1", b"\0"]),
            st.binary(min_size=1, max_size=6),
        ), max_size=5,
    ),
    flags=st.sampled_from([SYN, ACK, SYN | ACK, RST]),
    unmarked=st.sampled_from(["pass", "drop"]),
)  # fmt: skip
@ANY_INPUT
def test_hostile_options_change_options_only_and_as_the_reference_says(
    road: Road, options: list[bytes], flags: int, unmarked: str
) -> None:
    content = b"".join(options)[:40]
    packet = segment(b"payload", 1000, flags=flags, options=content + bytes(-len(content) % 4))
    chain = [{**A, "unmarked": unmarked, "id_bytes": 8}]
    hot = road(chain, "ingress", [packet], protocol="tcp")
    plain = road(chain, "ingress", [packet], protocol="tcp", reference=True)
    assert (hot.packets, hot.counters) == (plain.packets, plain.counters)
    assert all(is_sound(each) for each in hot.packets)
    assert set(hot.payloads) <= {b"payload"}


@given(
    content=st.lists(st.sampled_from([LINUX_SYN, TIMESTAMPS, SACKS, SIGNED["AO"], b"\1\1\1\1"]), max_size=3),
    flags=st.sampled_from([SYN, ACK, SYN | ACK, FIN | ACK]),
    identity=st.text("ab", min_size=1, max_size=24),
)
@ANY_INPUT
def test_round_trip(road: Road, content: list[bytes], flags: int, identity: str) -> None:
    options = b"".join(content)[:40]
    sent = segment(b"payload", 1000, 6, flags, options[: len(options) // 4 * 4])
    chain = [{**A, "id": identity, "id_bytes": len(identity)}]
    out = road(chain, "egress", [sent], protocol="tcp")
    assert out.packets == road(chain, "egress", [sent], protocol="tcp", reference=True).packets
    back: Passage = road(chain, "ingress", [Record(each) for each in out.packets], protocol="tcp")
    if flags & SYN and not flags & ACK:  # the engine lowered the MSS
        assert len(options_of(back.packets[0])) == len(options_of(sent))
    else:
        assert back.packets == [sent]


def chain_plan(scratch: Path, chain: list[Entry]) -> ChainPlan:
    (scratch / "policies").mkdir(parents=True)
    (scratch / "layer45.toml").write_text("")
    (scratch / "policies" / "test.toml").write_text(policy_text(chain, "tcp"))
    return load(scratch).chains[0]


def test_a_chain_of_it_alone_is_agreed_and_its_queue_is_like_any_other(tmp_path: Path) -> None:
    plan = chain_plan(tmp_path / "a", [A])
    assert plan.digests is not None and plan.growth_front == 15
    assert plan.gso and not plan.queue.renumbers and plan.queue.fail_open
    other_ends = {**A, "id": "x", "expect": "y", "unmarked": "drop"}
    assert chain_plan(tmp_path / "b", [other_ends]).digests == plan.digests
    assert chain_plan(tmp_path / "c", [{**A, "on": "all"}]).digests != plan.digests


@pytest.mark.parametrize(
    "parameters",
    [{"id": "nine byte"}, {"expect": "nine byte"}, {"exid": 0x4C45}],
    ids=["id", "expect", "exid"],
)
def test_what_cannot_be_is_refused_in_one_line(driver: Any, tmp_path: Path, parameters: Entry) -> None:
    for reference in (False, True):
        with pytest.raises(Layer45Error, match=r"expected at most id_bytes|is the engine's own"):
            Host(driver, tmp_path / str(reference), [{**A, **parameters}], reference)


def test_the_reference_walks_no_further_than_a_lie() -> None:
    assert list(walk(bytes.fromhex("01 020405b4 03ff00"))) == [(1, 2, b"\x05\xb4")]
