"""fec under floods: what a peer can make it hold is bounded, the oldest goes first, and all is counted."""

from collections import Counter

import pytest

from .fec_ends import PIECES, End, Ends, K, bare, block, id_of, marked, pieces, programme, shifted

MOST_OPEN = 48


def test_a_flood_of_blocks_takes_bounded_memory(ends: Ends) -> None:
    sent = programme(3)
    row, receiver = pieces(ends, sent), ends(memory_bytes=1 << 24)
    receiver.put(*block(row, 0))
    for at in range(3000):
        receiver.put(marked(b"forged" * 200, 1 + at, at % 200, 200))
        assert receiver.live["memory"] <= 1 + 2 * MOST_OPEN
    counted = receiver.counted
    assert counted["blocks_dropped"] == 3000 - MOST_OPEN
    assert "no_memory" not in counted
    assert receiver.put(*(shifted(each, 3000) for each in block(row, 1))) == sent[K : 2 * K]
    receiver.wait(251)
    assert receiver.live["memory"] == 1
    receiver.close()


def test_the_oldest_block_is_dropped_first(ends: Ends) -> None:
    """A flood of blocks behind the newest ones ends none of those."""
    sent = programme(2)
    row, receiver = [shifted(each, 62) for each in pieces(ends, sent)], ends()
    receiver.put(*(marked(b"forged", at, 0, K) for at in (0, 30, 60)), *row[:3], *row[6:9])
    receiver.put(*(marked(b"forged", at, 0, K) for at in range(1, 60)))
    assert Counter(receiver.put(row[K], row[PIECES + K])) == Counter([sent[3], sent[7]])
    assert receiver.close()["recovered"] == 2


def test_a_flood_of_repairs_holds_no_more_than_it_may(ends: Ends) -> None:
    sent = programme(1)
    row, receiver = pieces(ends, sent), ends(max_held=20)
    receiver.put(*row[:2])
    receiver.put(*(marked(bytes(80), 1 + at // 50, 60 + at % 50, 60) for at in range(500)))
    assert receiver.live["owned"] == 20
    counted = receiver.counted
    assert counted["not_held"] == 480
    assert receiver.put(*row[2:]) == sent[2:]
    receiver.close()


@pytest.mark.parametrize("number", [0, 5000])
def test_a_flood_of_flows_takes_bounded_memory(ends: Ends, number: int) -> None:
    """Without memory a flow's datagrams still go on, each without its id, once it is known to have one."""
    receiver = ends(memory_bytes=1)
    for port in range(1, 301):
        forged = [marked(b"a", number, 0, K), marked(b"b", number, 1, K)]
        assert receiver.put(*forged, port=port) == [b"a", b"b"]
    assert 0 < receiver.live["memory"] < 300
    assert receiver.close()["no_memory"] > 200


def use_up_memory(receiver: End) -> None:
    """Of a worker with the least, by a flow of its own: a block of ever shorter datagrams."""
    lengths = [length for length in (60000, 30000, 15000, 7000, 3000, 1500, 700, 300, 100) for _ in range(4)]
    receiver.put(*(marked(bytes(length), 0, at, 200) for at, length in enumerate(lengths)), port=7000)


def test_nothing_is_delivered_twice_for_want_of_memory(ends: Ends) -> None:
    """A symbol could not be kept when its datagram went on; when there is memory again, it is no lost one."""
    sent = programme(1)
    row, receiver = pieces(ends, sent), ends(memory_bytes=1)
    receiver.put(row[0])
    use_up_memory(receiver)
    before = receiver.counted["no_memory"]
    receiver.put(*row[1:3])
    assert receiver.counted["no_memory"] == before + 2
    receiver.put(*(marked(b"", ahead, 0, 200) for ahead in (32, 64)), port=7000)
    receiver.put(*row[3:])
    assert {each: receiver.got.count(each) for each in sent} == dict.fromkeys(sent, 1)
    receiver.close()


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ([0, PIECES], [K, *range(PIECES + 1, 2 * PIECES)]),  # a repair behind the next block's first source
        ([0, PIECES, K - 1], [K, *range(PIECES + 1, 2 * PIECES)]),  # and a source too
        ([1], [0, *range(2, PIECES)]),  # sources of one block
        ([0, PIECES], [1, *range(PIECES + 1, 2 * PIECES)]),  # of two blocks in turn: interleaved
        ([0, PIECES, 1], [2, *range(PIECES + 1, 2 * PIECES)]),
    ],
)
def test_nothing_is_delivered_twice_when_a_flow_gets_memory_late(
    ends: Ends, early: list[int], late: list[int]
) -> None:
    """Early ones went on without a window to remember them by. Then there is memory for one, and what comes
    is of a block that was overtaken on the way."""
    sent = programme(2)
    row, receiver = pieces(ends, sent), ends(memory_bytes=1)
    use_up_memory(receiver)
    receiver.put(*(row[at] for at in early))
    assert receiver.live["flows"] == 2
    receiver.put(*(marked(b"", ahead, 0, 200) for ahead in (32, 64)), port=7000)
    receiver.put(*(row[at] for at in late))
    got = [each for each in receiver.got if each in sent]
    assert len(set(got)) == len(got)
    assert {bare(row[at]) for at in early + late if id_of(row[at]).is_source} <= set(got)
    receiver.close()


def test_a_peer_that_begins_anew_finds_no_memory(ends: Ends) -> None:
    """Datagrams of the numbering before still wait for their turn then, and go; all memory comes back."""
    sent, anew = programme(2), programme(1, seed=2)
    row, receiver = pieces(ends, sent), ends(memory_bytes=1, reorder_ms=500)
    receiver.put(row[0], row[PIECES])
    use_up_memory(receiver)
    receiver.wait(1)
    receiver.put(*(each for each in pieces(ends, anew, 7 << 12) if each[-3] < K))
    receiver.wait(100)
    assert {*anew, sent[0], sent[K]} <= set(receiver.got)
    receiver.close()
