"""How two hosts agree, and what happens where they do not: then nothing is ever changed."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .chains import Chain, both
from .conftest import DIGESTS, HEADER_BYTES, Pair, network
from .layouts import Layout, Periodic
from .line import PLAIN_SYN, Line
from .network import Straight
from .packets import ACK, FIN, SYN, experiment, experiment_of, mss_of
from .reference import Stage
from .test_property import EXAMPLES, fitting, profiles, seeds, sizes, weathers

LAYOUT = Periodic(3, 10)
CHAIN = Chain((both(LAYOUT),))
STREAM = bytes(range(60, 120))
NOPS = bytes([1])


@pytest.fixture(params=[4, 6])
def line(pair: Pair, request: pytest.FixtureRequest) -> Line:
    """Not open yet."""
    return Line(pair(CHAIN), version=request.param)


def is_customized(line: Line) -> bool:
    """Both directions are, and unharmed, or neither is touched."""
    grown = set()
    for side in (0, 1):
        (out,) = line.out(side, line.packet(side, 0, STREAM[:20]))
        assert line.into(1 - side, out)[0].payload == STREAM[:20]
        grown.add(len(out.payload) - 20)
    assert grown in ({0}, {6})
    return grown == {6}


def test_the_offer_and_the_answer(line: Line) -> None:
    """In front of all other options, and gone before a kernel sees them."""
    syn, syn_ack = line.syn(), line.syn_ack()
    for side, packet, digests in ((0, syn, DIGESTS), (1, syn_ack, DIGESTS[::-1])):
        (out,) = line.out(side, packet)
        assert out.options[:8] == experiment(digests)
        assert out.options[12:] == PLAIN_SYN[4:]
        (arrived,) = line.into(1 - side, out)
        assert arrived.options == out.options[8:]
        assert (out.seq, out.ack, arrived.seq, arrived.ack) == (packet.seq, packet.ack) * 2
    assert is_customized(line)


@pytest.mark.parametrize("mss", [88, 100, 536, 1460, 8960])
@pytest.mark.parametrize(
    ("out", "into", "side"), [(LAYOUT, LAYOUT, 0), (LAYOUT, Layout(), 1), (Layout(), LAYOUT, 0)]
)
def test_mss(pair: Pair, out: Layout, into: Layout, side: int, mss: int) -> None:
    """Is lowered for those segments that will have grown when they come."""
    line = Line(pair(Chain((Stage(out, into),))))
    options = bytes([2, 4, *mss.to_bytes(2)])
    (syn,) = line.out(0, line.syn(options))
    (syn_ack,) = line.out(1, line.syn_ack(options)) if line.into(1, syn) else []
    said = [mss_of(syn.options), mss_of(syn_ack.options)][side]
    assert said is not None
    assert (
        said == 88
        if mss <= 100
        else said + LAYOUT.inserted(said) <= mss < said + 5 + LAYOUT.inserted(said + 5)
    )


@pytest.mark.parametrize(("count", "room"), [(0, True), (20, True), (32, True), (36, False), (40, False)])
def test_an_offer_needs_eight_bytes(line: Line, count: int, room: bool) -> None:
    options = PLAIN_SYN[:count] + NOPS * (count - 8)
    (out,) = line.out(0, line.syn(options))
    assert (experiment_of(out.options) is not None) == room
    assert out.options[8 * room :].count(NOPS) == options.count(NOPS)
    line.into(1, out)
    line.over(1, line.syn_ack())
    assert is_customized(line) == room


def test_an_answer_needs_eight_bytes(line: Line) -> None:
    line.over(0, line.syn())
    (out,) = line.out(1, line.syn_ack(PLAIN_SYN + NOPS * 28))
    assert out.options == PLAIN_SYN + NOPS * 28
    line.into(0, out)
    assert not is_customized(line)


def test_an_offer_that_gets_lost(line: Line) -> None:
    """Three are enough, for there are boxes that drop what they do not know."""
    syns = [line.out(0, line.syn())[0] for _ in range(5)]
    assert [experiment_of(each.options) is not None for each in syns] == [True] * 3 + [False] * 2
    line.into(1, syns[2])
    line.over(1, line.syn_ack())
    assert is_customized(line)


def test_answers_again(line: Line) -> None:
    (syn,) = line.out(0, line.syn())
    line.into(1, syn)
    answers = [line.out(1, line.syn_ack())[0] for _ in range(3)]
    assert {each.options for each in answers} == {answers[0].options}
    for each in answers:
        line.into(0, each)
    line.over(0, line.packet(0, 0, STREAM[:20]))
    line.into(1, syn)
    assert line.out(1, line.syn_ack())[0].options == answers[0].options
    line.into(0, answers[0])
    assert is_customized(line)


def test_an_answer_once_withheld_is_never_given(line: Line) -> None:
    """The peer may have seen the SYN/ACK without it."""
    line.into(1, line.syn())
    line.out(1, line.syn_ack())
    line.over(0, line.syn())
    assert line.out(1, line.syn_ack())[0].options == PLAIN_SYN
    assert not experiment_of(line.over(1, line.syn_ack()).options)


def test_an_answer_that_nobody_asked_for(line: Line) -> None:
    line.out(0, line.syn(PLAIN_SYN + NOPS * 28))
    line.into(0, line.syn_ack(experiment(DIGESTS[::-1]) + PLAIN_SYN))
    assert line.out(0, line.packet(0, 0, STREAM[:20]))[0].payload == STREAM[:20]


@pytest.mark.parametrize("digests", [(1, 2), (DIGESTS[0], 0), (0, DIGESTS[1])])
def test_other_digests(line: Line, digests: tuple[int, int]) -> None:
    """Both ways: in the offer and in the answer."""
    assert line.into(1, line.syn(experiment(digests) + PLAIN_SYN))[0].options == PLAIN_SYN
    assert line.out(1, line.syn_ack())[0].options == PLAIN_SYN
    line.out(0, line.syn())
    assert line.into(0, line.syn_ack(experiment(digests) + PLAIN_SYN))[0].options == PLAIN_SYN
    assert not is_customized(line)


@pytest.mark.parametrize("customized_side", [0, 1])
@given(profiles=st.tuples(profiles, profiles), weather=weathers, sizes=sizes, seed=seeds)
@EXAMPLES
def test_a_peer_without_the_policy(
    pair: Pair, customized_side: int, profiles, weather, sizes, seed: int
) -> None:
    """Streams arrive; the MSS apart, packets are those of the kernels."""
    hosts = list(pair(CHAIN))
    hosts[1 - customized_side] = Straight()
    left, right = fitting(profiles, replace(CHAIN, stages=(Stage(),)))
    bare = network(
        (hosts[0], hosts[1]), Random(seed), (left, right), sizes, 4, weather, HEADER_BYTES[4] + 536
    )
    for endpoint, _ in bare.sides:
        endpoint.ignores_offers = True
    bare.open()
    bare.run()


# --- Fast Open (RFC 7413) ---------------------------------------------------------------------


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("accepted", [0, 3, 8])
def test_what_a_syn_carries_stays(line: Line, accepted: int, again: bool) -> None:
    """The stream begins behind what the peer took of it. again: the SYN once more, without, as Linux does."""
    (out,) = line.out(0, line.syn(payload=STREAM[:8]))
    assert out.payload == STREAM[:8]
    assert line.into(1, out)[0].payload == STREAM[:8]
    (syn_ack,) = line.out(1, line.syn_ack(ack=accepted))
    if again:
        line.into(1, line.out(0, line.syn())[0])
        (syn_ack,) = line.out(1, line.syn_ack(ack=accepted))
    line.into(0, syn_ack)
    line.bases[0] += accepted
    assert is_customized(line)
    (out,) = line.out(0, line.packet(0, -accepted, STREAM[: accepted + 10]))  # all of it once more
    assert out.payload[:accepted] == STREAM[:accepted]
    assert len(out.payload) == accepted + 13
    assert line.into(1, out)[0].payload == STREAM[: accepted + 10]


def test_a_syn_that_the_offer_makes_too_long(pair: Pair) -> None:
    """Its data's end goes later, as what the peer did not take."""
    line = Line(pair(CHAIN, 100))
    (out,) = line.out(0, line.syn(payload=STREAM[:52]))
    assert out.payload == STREAM[:44]
    line.into(1, out)
    line.over(1, line.syn_ack(ack=44))
    line.bases[0] += 44
    assert line.over(0, line.packet(0, 0, STREAM[44:52])).payload == STREAM[44:52]
    assert is_customized(line)


# --- the same ports once more -----------------------------------------------------------------


def test_a_connection_behind_another(line: Line) -> None:
    """Begins at offset 0, whoever closed the other."""
    line.open()
    for side in (0, 1):
        line.over(side, line.packet(side, 0, STREAM[:25], ack=25 * side, flags=ACK | FIN))
    for start in (70_000, 3_000_000_000):
        line.isns = (start, start + 5)
        line.bases = [start + 1, start + 6]
        line.open()
        assert is_customized(line)


def test_a_syn_of_a_peer_that_restarted(line: Line) -> None:
    """Our kernel answers for the old connection; the peer's resets it, and asks again."""
    line.open()
    line.over(1, line.packet(1, 0, STREAM[:15], ack=0))
    line.over(0, line.packet(0, 0, ack=15))
    fresh = Line(line.hosts, (777_777, line.isns[1]), line.version)
    fresh.over(0, fresh.syn())
    (challenge,) = line.out(1, line.packet(1, 15, ack=0))
    (seen,) = fresh.into(0, challenge)
    (reset,) = fresh.out(0, fresh.packet(0, 0, flags=4).but(seq=seen.ack))
    assert line.seq(0, line.into(1, reset)[0]) == 0
    fresh.isns, fresh.bases[1] = (777_777, 888_888), 888_889
    fresh.over(0, fresh.syn())
    fresh.over(1, fresh.syn_ack())
    assert is_customized(fresh)


def test_simultaneous_open(line: Line) -> None:
    """Both offer, and neither knows which of the other's SYNs is answered: the connection stays as it is."""
    syns = [
        line.out(0, line.syn())[0],
        line.out(1, line.packet(1, -1, flags=SYN, options=PLAIN_SYN).but(ack=0))[0],
    ]
    for side in (0, 1):
        assert line.into(1 - side, syns[side])[0].options[4:] == PLAIN_SYN[4:]
    answers = [
        line.out(side, line.packet(side, -1, flags=SYN | ACK, options=PLAIN_SYN))[0] for side in (0, 1)
    ]
    for side in (0, 1):
        line.into(1 - side, answers[side])
    assert not is_customized(line)
