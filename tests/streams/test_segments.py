"""Tables of what one segment becomes: 3 bytes in front of every 10, so W(1) = 4, W(10) = 13, W(11) = 17."""

from itertools import pairwise

import pytest

from .chains import Chain, both
from .conftest import Pair
from .layouts import Layout, Periodic
from .line import Line, blocks, sack
from .packets import ACK, FIN, PSH, RST, SYN, URG
from .reference import Stage

LAYOUT = Periodic(3, 10)
CHAIN = Chain((both(LAYOUT),))
STREAM = bytes(range(60, 120))
NEVER = 1 << 20


def wire_of(start: int, end: int) -> bytes:
    return b"".join(LAYOUT.run(at) + STREAM[at : at + 1] for at in range(start, end))


@pytest.fixture(params=[4, 6])
def line(pair: Pair, request: pytest.FixtureRequest) -> Line:
    return Line(pair(CHAIN), version=request.param).open()


@pytest.fixture
def either(either_pair: Pair) -> Line:
    return Line(either_pair(CHAIN)).open()


POSITIONS = [(-1, -1), (0, 0), (1, 4), (9, 12), (10, 13), (11, 17), (19, 25), (20, 26), (21, 30), (59, 77)]


@pytest.mark.parametrize(("offset", "wire"), POSITIONS)
def test_an_acknowledgement_alone(line: Line, offset: int, wire: int) -> None:
    """And a keep-alive: a number in front of what is acknowledged, no bytes."""
    (out,) = line.out(0, line.packet(0, offset, ack=offset))
    assert line.numbers(0, out) == (wire, wire, 0)
    (arrived,) = line.into(1, out)
    assert line.numbers(0, arrived) == (offset, offset, 0)


@pytest.mark.parametrize("start", [0, 1, 9, 10, 11, 25])
@pytest.mark.parametrize("end", [1, 9, 10, 11, 20, 21, 40])
def test_bytes(line: Line, start: int, end: int) -> None:
    if start < end:
        (out,) = line.out(0, line.packet(0, start, STREAM[start:end]))
        assert out.payload == wire_of(start, end)
        (arrived,) = line.into(1, out)
        assert (line.seq(0, arrived), arrived.payload) == (start, STREAM[start:end])


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("acknowledged", [0, 1, 10, 11, 20])
def test_a_keep_alive(line: Line, acknowledged: int, length: int) -> None:
    """Its byte is one that the peer has, or at the start the SYN's number."""
    line.over(0, line.packet(0, 0, STREAM[:acknowledged]))
    line.over(1, line.packet(1, 0, ack=acknowledged))
    arrived = line.over(0, line.packet(0, acknowledged - 1, b"x" * length))
    assert line.numbers(0, arrived) == (acknowledged - 1, 0, length)


@pytest.mark.parametrize("swapped", [False, True])
def test_segments_cut_anywhere_on_the_wire(pair: Pair, swapped: bool) -> None:
    """In a run too: its part that comes alone is an empty segment, whose other fields still arrive."""
    for at in range(1, len(wire_of(0, 25))):
        line = Line(pair(CHAIN)).open()
        (whole,) = line.out(0, line.packet(0, 0, STREAM[:25], window=777))
        first = whole.but(payload=whole.payload[:at])
        second = whole.but(payload=whole.payload[at:], seq=whole.seq + at)
        pieces = [line.into(1, each)[0] for each in ([second, first] if swapped else [first, second])]
        first, second = pieces[::-1] if swapped else pieces
        assert first.payload + second.payload == STREAM[:25]
        assert line.seq(0, first) == 0
        assert line.seq(0, second) == len(first.payload)
        assert {each.window for each in pieces} == {line.over(0, line.packet(0, 0, window=777)).window}
        assert {line.ack(0, each) for each in pieces} == {0}


@pytest.mark.parametrize(
    ("start", "end", "offset"), [(0, 3, 0), (1, 2, 0), (13, 16, 10), (14, 15, 10), (26, 28, 20)]
)
def test_a_segment_within_a_run_is_empty(line: Line, start: int, end: int, offset: int) -> None:
    (whole,) = line.out(0, line.packet(0, 0, STREAM[:30]))
    (arrived,) = line.into(1, whole.but(payload=whole.payload[start:end], seq=whole.seq + start))
    assert line.numbers(0, arrived) == (offset, 0, 0)


@pytest.mark.parametrize("boundaries", [(0, 30), (0, 10, 30), (0, 3, 11, 20, 30), (0, 1, 2, 9, 21, 30)])
def test_retransmissions_have_the_same_bytes(line: Line, boundaries: tuple[int, ...]) -> None:
    line.out(0, line.packet(0, 0, STREAM[:30]))
    parts = [line.out(0, line.packet(0, start, STREAM[start:end]))[0] for start, end in pairwise(boundaries)]
    assert b"".join(part.payload for part in parts) == wire_of(0, 30)


# --- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "wire"), [(0, 0), (1, 4), (9, 12), (10, 13), (11, 17), (20, 26)])
@pytest.mark.parametrize("apart", [False, True])
def test_fin(line: Line, length: int, wire: int, apart: bool) -> None:
    """At a run's place too, which then is not on the wire."""
    if apart:
        line.over(0, line.packet(0, 0, STREAM[:length]))
    for start in (length if apart else 0, length, max(0, length - 4)):  # again, and cut elsewhere
        (out,) = line.out(0, line.packet(0, start, STREAM[start:length], flags=ACK | FIN))
        assert line.seq(0, out) + len(out.payload) == wire
        (arrived,) = line.into(1, out)
        assert (line.seq(0, arrived), arrived.payload) == (start, STREAM[start:length])
    (acknowledgement,) = line.out(1, line.packet(1, 0, ack=length + 1))
    assert line.ack(1, acknowledgement) == wire + 1
    assert line.ack(1, line.into(0, acknowledgement)[0]) == length + 1
    (behind,) = line.out(0, line.packet(0, length + 1))
    assert line.seq(0, behind) == wire + 1
    assert line.seq(0, line.into(1, behind)[0]) == length + 1


def test_a_fin_that_comes_before_what_is_in_front_of_it(line: Line) -> None:
    """Its SACK block acknowledges its number, not the run that would follow."""
    line.out(0, line.packet(0, 0, STREAM[:10]))
    line.over(0, line.packet(0, 10, flags=ACK | FIN))
    (out,) = line.out(1, line.packet(1, 0, options=sack(line, 1, (10, 11))))
    assert blocks(line, 1, out) == [(13, 14)]
    assert blocks(line, 1, line.into(0, out)[0]) == [(10, 11)]


@pytest.mark.parametrize("seq", [NEVER, -NEVER, 4, 12])
@pytest.mark.parametrize("payload", [b"", b"abc"])
def test_a_forged_fin_changes_nothing(either: Line, seq: int, payload: bytes) -> None:
    """Outside the window, or with an acknowledgement of what was never sent."""
    either.over(0, either.packet(0, 0, STREAM[:10], flags=ACK | FIN))
    either.into(1, either.packet(0, seq, payload, ack=NEVER, flags=ACK | FIN))
    assert either.ack(1, either.out(1, either.packet(1, 0, ack=11))[0]) == 14
    assert either.seq(0, either.over(0, either.packet(0, 11))) == 11


def test_a_forged_fin_before_the_last_bytes(either: Line) -> None:
    """At the very byte, in the window; only what it acknowledges betrays it."""
    either.over(0, either.packet(0, 0, STREAM[:20]))
    either.into(1, either.packet(0, 26, ack=NEVER, flags=ACK | FIN))  # wire 26: in front of byte 20
    either.over(0, either.packet(0, 20, STREAM[20:21]))
    assert either.ack(1, either.over(1, either.packet(1, 0, ack=21))) == 21


@pytest.mark.parametrize("offset", [0, 1, 10, 11])
def test_reset(line: Line, offset: int) -> None:
    line.over(0, line.packet(0, 0, STREAM[:offset]))
    for flags in (RST, RST | ACK):
        assert line.seq(0, line.over(0, line.packet(0, offset, flags=flags))) == offset


def test_a_reset_that_answers_a_stranger(line: Line) -> None:
    """Our kernel takes its number from the stranger's segment: it says nothing of our stream."""
    line.over(0, line.packet(0, 0, STREAM[:20]))
    for seq in (1 << 31, 3 << 29, -(1 << 30)):
        line.out(0, line.packet(0, seq, ack=seq, flags=RST | ACK))
    assert line.over(0, line.packet(0, 20, STREAM[20:30])).payload == STREAM[20:30]


# --- fields -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0, 1, 7, 14])
@pytest.mark.parametrize("units", [0, 1, 2, 9, 100, 1000, 40_000])
@pytest.mark.parametrize("ack", [0, 1, 10, 15])
def test_a_window_arrives_as_it_left(pair: Pair, scale: int, units: int, ack: int) -> None:
    line = Line(pair(CHAIN)).open(bytes([1, 3, 3, scale]))
    (out,) = line.out(0, line.packet(0, 0, ack=ack, window=units))
    wide = LAYOUT.inserted(ack + (units << scale)) - LAYOUT.inserted(ack) + (units << scale)
    assert out.window << scale in range(wide, wide + (1 << scale))
    assert line.into(1, out)[0].window == units


@pytest.mark.parametrize("scale", [0, 14])
def test_the_largest_window(pair: Pair, scale: int) -> None:
    """The field is full: less arrives, and never more."""
    line = Line(pair(CHAIN)).open(bytes([1, 3, 3, scale]))
    (out,) = line.out(0, line.packet(0, 0, window=0xFFFF))
    assert out.window == 0xFFFF
    edge = line.into(1, out)[0].window << scale
    assert 0.7 * (0xFFFF << scale) < edge + LAYOUT.inserted(edge) <= 0xFFFF << scale


@pytest.mark.parametrize("scaled", [0, 1])
def test_a_scale_that_only_one_side_has_counts_for_none(pair: Pair, scaled: int) -> None:
    line = Line(pair(CHAIN))
    options = [bytes([1, 1, 1, 1]), bytes([1, 3, 3, 7])]
    line.over(0, line.syn(options[scaled]))
    line.over(1, line.syn_ack(options[1 - scaled]))
    for side in (0, 1):
        (out,) = line.out(side, line.packet(side, 0, window=10))
        assert (out.window, line.into(1 - side, out)[0].window) == (13, 10)


@pytest.mark.parametrize("end", range(1, 25))
def test_urgent(line: Line, end: int) -> None:
    """Points behind the urgent byte, wherever a run is."""
    (out,) = line.out(0, line.packet(0, 0, STREAM[:25], flags=ACK | URG, urgent=end))
    assert out.urgent == end + LAYOUT.inserted(end)
    assert line.into(1, out)[0].urgent == end


def test_sack(line: Line) -> None:
    """And what was received twice (RFC 2883), below the acknowledgement."""
    line.out(0, line.packet(0, 0, STREAM))
    spans = [(0, 5), (11, 20), (20, 21), (30, 59)]
    (out,) = line.out(1, line.packet(1, 0, ack=10, options=sack(line, 1, *spans)))
    assert blocks(line, 1, out) == [(0, 8), (17, 26), (26, 30), (39, 77)]
    assert blocks(line, 1, line.into(0, out)[0]) == spans


# --- what does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize("end", [39, 40, 41, 42, 60])
def test_a_segment_that_outgrew_the_mtu_is_cut(pair: Pair, end: int) -> None:
    """40 bytes of wire stream fit. FIN and PSH go with the last, and the urgent byte is where it was."""
    line = Line(pair(CHAIN, 80)).open()
    flags = ACK | PSH | FIN | URG
    packets = line.out(0, line.packet(0, 0, STREAM, flags=flags, urgent=40 * 10 // 13 if end == 60 else end))
    assert b"".join(each.payload for each in packets) == wire_of(0, 60)
    assert {each.flags & ~URG for each in packets[:-1]} == {ACK}
    assert packets[-1].flags & (PSH | FIN) == PSH | FIN
    assert max(len(each.build()) for each in packets) <= 80
    marks = {line.seq(0, each) + each.urgent for each in packets if each.flags & URG}
    assert len(marks) == 1
    assert all(each.urgent for each in packets if each.flags & URG), "0 is the byte itself, for Linux"


def test_one_direction_only(pair: Pair) -> None:
    line = Line(pair(Chain((Stage(LAYOUT, Layout()),)))).open()
    assert line.out(0, line.packet(0, 0, STREAM[:11]))[0].payload == wire_of(0, 11)
    assert line.out(1, line.packet(1, 0, STREAM[:11]))[0].payload == STREAM[:11]
    assert line.ack(1, line.out(1, line.packet(1, 11, ack=11))[0]) == 17
    assert line.ack(0, line.out(0, line.packet(0, 11, ack=11))[0]) == 11


def test_strangers_syn_on_a_connection(either: Line) -> None:
    either.over(0, either.packet(0, 0, STREAM[:20]))
    for flags in (SYN, SYN | ACK):
        either.into(1, either.packet(0, NEVER, ack=NEVER, flags=flags))
    assert either.over(0, either.packet(0, 20, STREAM[20:30])).payload == STREAM[20:30]
    assert either.ack(1, either.over(1, either.packet(1, 0, ack=30))) == 30
