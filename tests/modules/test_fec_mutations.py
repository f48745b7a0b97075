"""fec under any mixture of what a network does, and of what a forger does who can mend checksums."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ..unit.compiled import compiled
from .fec_ends import PIECES, End, Ends, Id, K, bare, block, damaged, id_of, pieces, programme, shifted
from .wire import datagram

BLOCKS, EPOCH = 12, 5 << 12
EVERY_PIECE = range(BLOCKS * PIECES)
CORPUS = Path(__file__).parents[1] / "fuzz/fec_ingress/corpus"
MANY = int(os.environ.get("LAYER45_EXAMPLES", "80"))
Fate = tuple[Any, ...]

NETWORK: st.SearchStrategy[Fate] = st.one_of(
    st.just(("lost",)),
    st.just(("twice",)),
    st.tuples(st.just("late"), st.integers(1, 60)),
    st.tuples(st.just("damaged"), st.integers(0, 60), st.integers(1, 255)),
)
FORGER: st.SearchStrategy[Fate] = st.one_of(
    st.tuples(st.just("changed"), st.integers(1, 100), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(1, 90)),
    st.tuples(st.just("spliced"), st.sampled_from(EVERY_PIECE)),
    st.tuples(st.just("renumbered"), st.integers(-70, 70)),
    st.tuples(st.just("replayed"), st.sampled_from(EVERY_PIECE)),
    st.tuples(st.just("delayed"), st.integers(1, 300)),
)


def fates(*kinds: st.SearchStrategy[Fate]) -> st.SearchStrategy[dict[int, Fate]]:
    """Of single pieces; all others arrive as they left, in turn."""
    return st.dictionaries(st.sampled_from(EVERY_PIECE), st.one_of(*kinds), max_size=40)


@dataclass(frozen=True)
class Arrival:
    payload: bytes
    is_forged: bool = False
    damage: tuple[int, int] | None = None
    after_ms: int = 0


@dataclass(frozen=True)
class Story:
    """Two lives of a sender: what was sent, what left, and what then becomes of the second one's."""

    sent: list[bytes]
    row: list[bytes]
    past: list[bytes]
    fates: dict[int, Fate]

    @property
    def arrivals(self) -> list[Arrival]:
        placed: dict[int, list[Arrival]] = defaultdict(list)
        for at in range(len(self.row)):
            for delay, arrival in self._arrivals_of(at):
                placed[at + delay].append(arrival)
        return [arrival for at in sorted(placed) for arrival in placed[at]]

    def _arrivals_of(self, at: int) -> Iterator[tuple[int, Arrival]]:
        """With by how many pieces each is late."""
        payload, (fate, *operands) = self.row[at], self.fates.get(at, ("kept",))
        if fate == "late":
            yield operands[0], Arrival(payload)
        elif fate == "damaged":
            yield 0, Arrival(payload, damage=(operands[0], operands[1]))
        elif fate == "delayed":
            yield 0, Arrival(payload, after_ms=operands[0])
        elif fate == "replayed":
            yield from ((0, Arrival(self.past[operands[0]], True)), (0, Arrival(payload)))
        elif fate in ("kept", "twice"):
            yield from [(0, Arrival(payload))] * (1 + (fate == "twice"))
        elif fate != "lost":
            yield 0, Arrival(self._forged(payload, fate, operands), True)

    def _forged(self, payload: bytes, fate: str, operands: list[int]) -> bytes:
        if fate == "changed":
            return damaged(payload, operands[0] % len(payload), operands[1])
        if fate == "cut":
            return payload[: -operands[0]]
        if fate == "spliced":
            return bare(payload) + self.row[operands[0]][-6:]
        return shifted(payload, operands[0])


Lives = tuple[list[bytes], list[bytes], list[bytes]]


@pytest.fixture(scope="module")
def lives(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Lives:
    """What a Story is of."""
    ends, sent = Ends(driver, tmp_path_factory.mktemp("lives")), programme(BLOCKS)
    return sent, pieces(ends, sent), pieces(ends, programme(BLOCKS, seed=2), EPOCH)


def told(ends: Ends, lives: Lives, fates: dict[int, Fate], **parameters: Any) -> tuple[Story, End]:
    story, receiver = Story(*lives, fates), ends(**parameters)
    for arrival in story.arrivals:
        if arrival.after_ms:
            receiver.wait(arrival.after_ms)
        packet = datagram(arrival.payload)
        if arrival.damage:
            at, mask = arrival.damage
            packet = damaged(packet, 28 + at % len(arrival.payload), mask)
        receiver.put_packet(packet)
    receiver.wait(50)
    return story, receiver


def named(payload: bytes) -> Id | None:
    id = id_of(payload) if len(payload) >= 6 else Id(0, 0, 0)
    return id if 1 <= id.k <= 200 and id.esi < min(id.k + 100, 255) else None


settled = settings(
    max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("reorder_ms", [0, 20])
@settled
@given(fates=fates(NETWORK))
@example(fates={0: ("late", 60), 1: ("lost",)})
@example(fates={at: ("late", at % 7) for at in EVERY_PIECE})
def test_a_network_costs_what_it_loses_and_no_more(
    ends: Ends, lives: Lives, reorder_ms: int, fates: dict[int, Fate]
) -> None:
    """Each datagram that came, or whose block has as many symbols as datagrams, is delivered, and once."""
    story, receiver = told(ends, lives, fates, reorder_ms=reorder_ms)
    got = Counter(receiver.got)
    came = {each.payload for each in story.arrivals if not each.damage}
    expected = set()
    for at in range(BLOCKS):
        symbols = came & set(block(story.row, at))
        there = [bare(each) for each in symbols if id_of(each).is_source]
        expected |= set(story.sent[at * K : (at + 1) * K] if len(symbols) >= K else there)
    assert not set(got) - set(story.sent)
    assert set(got.values()) <= {1}
    lost_in_doubt = receiver.counted.get("stale", 0) + receiver.counted.get("unmarked", 0)
    assert len(expected - set(got)) <= lost_in_doubt
    receiver.close()


@pytest.mark.parametrize("reorder_ms", [0, 20])
@settled
@given(fates=fates(NETWORK, FORGER))
@example(fates={7: ("renumbered", 1), 8: ("spliced", 2), 12: ("cut", 6), 13: ("lost",)})
def test_a_forger_spoils_the_blocks_that_he_names(
    ends: Ends, lives: Lives, reorder_ms: int, fates: dict[int, Fate]
) -> None:
    """What he sends is delivered as itself. Of other blocks nothing is that was not sent, nor is it twice."""
    story, receiver = told(ends, lives, fates, reorder_ms=reorder_ms)
    forged = {each.payload for each in story.arrivals if each.is_forged}
    spoilt = {id.sbn for id in map(named, forged) if id}
    sbn_of = {bare(each): id_of(each).sbn for each in story.row if id_of(each).is_source}
    counted = receiver.close()
    kept = [each for each in receiver.delivered if each.payload == each.carrier and named(each.carrier)]
    assert len(kept) <= counted.get("unmarked", 0)
    for each in receiver.delivered:
        id = named(each.carrier)
        if each.payload == each.carrier or (id and id.is_source):
            assert each.payload in (each.carrier, bare(each.carrier))
        else:
            assert id
            assert id.sbn in spoilt or sbn_of[each.payload] == id.sbn
    if not counted.get("restarts", 0) and counted.get("unmarked", 0) < 16:
        times = Counter(each.payload for each in receiver.delivered if each.carrier not in forged)
        assert {sbn_of.get(each) for each, count in times.items() if count > 1} <= spoilt


@pytest.fixture
def fec_ingress(tmp_path: Path) -> Iterator[Any]:
    module = compiled(CORPUS.parent, tmp_path)
    yield module
    module.close()


def test_what_a_fuzzer_found_breaks_nothing(fec_ingress: Any) -> None:
    """Its inputs, which it keeps for what they reach, and those that once broke something."""
    total: Counter[str] = Counter()
    for file in sorted(CORPUS.iterdir()):
        try:
            total.update(fec_ingress.run(file.read_bytes()))
        except AssertionError as broken:
            pytest.fail(f"{file.name}: {broken}")
    reached = {name for name, times in total.items() if times}
    assert {
        "arrived", "recovered", "unrecovered", "late", "duplicate", "repairs_arrived", "not_held",
        "no_memory", "blocks_dropped", "unmarked", "other_parameters", "invalid", "corrupt", "restarts",
        "stale", "waited", "no_room", "reports_sent", "reports_received", "reports_refused",
    } <= reached  # fmt: skip
