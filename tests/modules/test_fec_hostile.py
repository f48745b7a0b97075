"""fec under datagrams that no sender of ours sends: they change counters, and nothing else.

What a forged datagram says of itself is delivered, as it would be without fec. No datagram that was sent is
lost by it, none is delivered twice, none is delivered that was altered elsewhere than in its own block.
"""

import random
import struct
from collections import Counter

import pytest

from .fec_ends import (
    EGRESS,
    PASS,
    PIECES,
    REWRITTEN,
    Ends,
    K,
    M,
    bare,
    block,
    damaged,
    id_of,
    marked,
    pieces,
    programme,
    shifted,
)
from .wire import datagram

WINDOW = 64
LARGEST_BYTES = 65507  # that IPv4 carries
MARKED_BYTES = 65531 - 28 - 6  # the longest that takes an id
PROTECTED_BYTES = MARKED_BYTES - 3  # the longest that a repair can be made for
TRUNCATED = 32


# --- ids ---


@pytest.mark.parametrize("unmarked", ["pass", "drop"])
def test_ids_out_of_range_are_no_ids(ends: Ends, unmarked: str) -> None:
    ids = [(0, 0, 0), (0, 0, 201), (0, 0, 0xFFFF), (0, 4 + 100, 4), (9, 255, 155), (9, 255, 200)]
    receiver = ends(unmarked=unmarked)
    forged = [marked(b"payload", *each) for each in ids]
    assert receiver.put(*forged) == (forged if unmarked == "pass" else [])
    assert receiver.close() == {"unmarked": len(ids)}


def test_ids_out_of_range_within_a_stream(ends: Ends) -> None:
    sent = programme(2)
    row, receiver = pieces(ends, sent), ends()
    for each in row:
        sbn, esi, k = id_of(each)
        receiver.put(marked(b"forged", sbn, esi, 0), marked(b"forged", sbn, 104, k), each)
    got = [each for each in receiver.got if not each.startswith(b"forged")]
    assert got == sent
    assert receiver.close() == {"arrived": 2 * K, "repairs_arrived": 2 * M, "unmarked": 4 * PIECES}


@pytest.mark.parametrize("length", range(6))
def test_a_payload_shorter_than_an_id(ends: Ends, length: int) -> None:
    receiver = ends()
    assert receiver.put(bytes(length)) == [bytes(length)]
    assert receiver.close() == {"unmarked": 1}


def test_a_forged_source_is_delivered_as_itself_and_spoils_its_block_at_most(ends: Ends) -> None:
    """It takes the place of the true one, as any first copy does; the other block's lost one is made anew."""
    sent = programme(2)
    row, receiver = pieces(ends, sent), ends()
    first, second = block(row, 0), block(row, 1)
    got = receiver.put(marked(b"forged", 0, 1, K), *first[:K], *second[1:])
    assert got[:1] == [b"forged"]
    assert Counter(got[1:]) == Counter([sent[0], *sent[2:]])
    assert receiver.close()["duplicate"] == 1


def test_a_forged_repair_spoils_its_block_only(ends: Ends) -> None:
    sent = programme(2)
    row, receiver = pieces(ends, sent), ends()
    lost_of_both = [at for at in range(len(row)) if at % PIECES != 2]
    length = max(len(each) for each in block(row, 0)) - 6
    forged = marked(b"\xff" * length, 0, K + 1, K)
    first, *rest = (row[at] for at in lost_of_both)
    got = receiver.put(first, forged, *rest)
    assert Counter(got) == Counter(each for at, each in enumerate(sent) if at != 2)
    counted = receiver.close()
    assert counted["invalid"] == 1
    assert counted["recovered"] == counted["unrecovered"] == 1


def test_repairs_for_blocks_that_never_were(ends: Ends) -> None:
    sent, receiver = programme(2), ends(give_up_ms=100)
    row = pieces(ends, sent)
    assert receiver.put(*block(row, 0)) == sent[:K]
    forged = [marked(bytes(50), sbn, esi, K) for sbn in range(5, 20) for esi in (K, K + 1)]
    assert receiver.put(*forged) == []
    assert receiver.live["owned"] == len(forged)
    assert receiver.put(*block(row, 1)) == sent[K:]
    assert receiver.wait(101) == []
    assert receiver.live == {"flows": 1, "owned": 0, "timers": 0, "memory": 1}
    counted = receiver.close()
    assert counted["repairs_arrived"] == 2 * M + len(forged)
    assert "recovered" not in counted


def test_repairs_and_nothing_else(ends: Ends) -> None:
    """A receiver that never heard a source: two that fit together are believed, and then wait in vain."""
    receiver = ends(give_up_ms=100)
    assert receiver.put(*(marked(bytes(50), 777, K + at, K) for at in range(M))) == []
    assert receiver.wait(101) == []
    assert receiver.close()["repairs_arrived"] == M


# --- symbols ---


def test_repairs_of_different_lengths(ends: Ends) -> None:
    """The first one is believed, here a true one: the forged ones are too short, too long, of another k."""
    sent = programme(1)
    row, receiver = pieces(ends, sent), ends()
    longer = marked(bare(row[K + 1]) + b"\0", 0, K + 1, K)
    shorter = marked(bare(row[K + 1])[:-1], 0, K + 1, K)
    other_k = marked(bare(row[K + 1]), 0, K + 1, K - 1)
    got = receiver.put(*row[1:3], row[K], longer, shorter, other_k, row[K + 1])
    assert Counter(got) == Counter(sent)
    assert receiver.close()["invalid"] == 3


def test_a_repair_shorter_than_what_it_repairs(ends: Ends) -> None:
    sent = programme(1)
    row, receiver = pieces(ends, sent), ends()
    short = [marked(bytes(length), 0, K + 1, K) for length in range(3)]
    got = receiver.put(row[1], *short, *row[2:])
    assert Counter(got) == Counter(sent)
    assert receiver.close()["invalid"] == len(short)


def test_a_source_longer_than_its_blocks_repairs(ends: Ends) -> None:
    """Delivered, as it came; but it can't be what the repairs are made of."""
    sent = programme(1)
    row, receiver = pieces(ends, sent), ends()
    long = marked(b"forged" * 40, 0, 0, K)
    got = receiver.put(row[1], row[K], long, *row[2:K], row[K + 1])
    assert Counter(got) == Counter([*sent[1:], bare(long)])
    counted = receiver.close()
    assert counted["invalid"] == 1
    assert "recovered" not in counted


@pytest.mark.parametrize("k", [1, 3, 8, 200])
def test_a_peer_that_changes_k_in_mid_block(ends: Ends, k: int) -> None:
    """What it sends is delivered, each once, whichever k the block began with."""
    sent = programme(2)
    row, receiver = pieces(ends, sent), ends()
    changed = [marked(bare(each), 0, at, k) for at, each in enumerate(row[2:K], 2)]
    got = receiver.put(*row[:2], *changed, *row[K:PIECES], *block(row, 1)[1:])
    assert Counter(got) == Counter(sent if k > 3 else [*sent[:2], *sent[2:]])
    counted = receiver.close()
    assert counted.get("invalid", 0) == sum(id_of(each).is_source for each in changed) or k < 4


def test_empty_datagrams_are_made_anew(ends: Ends) -> None:
    row, receiver = pieces(ends, [b""] * K), ends()
    assert [len(each) for each in row] == [6] * K + [9] * M
    assert receiver.put(*row[2:]) == [b""] * K
    assert receiver.close()["recovered"] == M


# --- lengths ---


@pytest.mark.parametrize("payload", [b"\xff" * LARGEST_BYTES, b"\xff" * MARKED_BYTES], ids=len)
def test_the_longest_datagrams_without_an_id(ends: Ends, payload: bytes) -> None:
    receiver = ends()
    assert receiver.put(payload) == [payload]
    assert receiver.close() == {"unmarked": 1}


def test_the_longest_datagrams_with_an_id(ends: Ends) -> None:
    """65,507 bytes with the id: longer than any that our senders send, and than a verdict can carry."""
    receiver = ends()
    payload = bytes(LARGEST_BYTES - 6)
    assert receiver.put(marked(payload, 0, 0, K)) == [payload]
    assert receiver.put(marked(bytes(LARGEST_BYTES - 6), 0, K, K)) == []
    assert receiver.close()["arrived"] == 1


@pytest.mark.parametrize("length", [MARKED_BYTES + 1, LARGEST_BYTES])
def test_what_is_too_long_for_an_id_leaves_as_it_is(ends: Ends, length: int) -> None:
    """And leaves nothing behind, first of its block or not."""
    sender, long, sent = ends(EGRESS), bytes(length), programme(1)
    assert sender.put(long, long) == [long, long]
    assert sender.live["memory"] == 0
    row = sender.put(sent[0], long, *sent[1:], long)
    receiver = ends()
    assert Counter(receiver.put(*row)) == Counter([*sent, long, long])
    assert sender.close()["no_room"] == 4
    assert receiver.close()["unmarked"] == 2


def test_what_is_too_long_for_a_repair_is_not_protected(ends: Ends) -> None:
    sender, receiver = ends(EGRESS), ends()
    sent = [bytes(MARKED_BYTES), *programme(1)[1:]]
    assert receiver.put(*sender.put(*sent)) == sent
    assert sender.close()["unprotected"] == K


def test_the_longest_that_is_protected(ends: Ends) -> None:
    sender, receiver = ends(EGRESS), ends()
    sent = [random.Random(1).randbytes(PROTECTED_BYTES), *programme(1)[1:]]
    assert Counter(receiver.put(*sender.put(*sent)[1:])) == Counter(sent)
    assert receiver.close()["recovered"] == 1


def test_repairs_that_do_not_fit_behind_longer_headers(ends: Ends) -> None:
    """The block's last datagram has 40 bytes of IP options, and so have its repairs: whole or not at all."""
    sender = ends(EGRESS)
    sender.put(bytes(PROTECTED_BYTES), b"", b"")
    sender.put_packet(with_options(datagram(b"")))
    assert [len(each) for each in sender.sent] == [PROTECTED_BYTES + 6, 6, 6, 26 + 20]
    assert sender.close()["not_sent"] == M


def with_options(packet: bytes) -> bytes:
    """40 bytes of no operation. Nobody verifies the IP checksum of what leaves."""
    longer = bytearray(packet[:20] + bytes([1]) * 40 + packet[20:])
    longer[0] = 0x4F
    struct.pack_into("!H", longer, 2, len(longer))
    return bytes(longer)


def test_cut_short_by_the_kernel(ends: Ends) -> None:
    """Not the whole payload: on_failure decides, and fec never sees it."""
    receiver = ends()
    packet = datagram(pieces(ends, programme(1))[0])
    assert receiver.put_packet(packet[:-3], flags=TRUNCATED) == PASS
    assert receiver.close() == {}


# --- numbers ---


@pytest.mark.parametrize("reorder_ms", [0, 10])
@pytest.mark.parametrize("before", [1, 5, 40])
def test_numbers_wrap(ends: Ends, before: int, reorder_ms: int) -> None:
    """So many blocks before their end, one lost in each; a receiver that hears them from then on."""
    sent = programme(60)
    row, receiver = pieces(ends, sent), ends(reorder_ms=reorder_ms)
    receiver.put(*(shifted(each, -before) for at, each in enumerate(row) if at % PIECES != 2))
    assert receiver.got == sent if reorder_ms else Counter(receiver.got) == Counter(sent)
    counted = receiver.close()
    assert counted["recovered"] == 60
    assert not {"restarts", "stale", "blocks_dropped", "unrecovered"} & set(counted)


def test_a_senders_numbers_wrap(ends: Ends) -> None:
    """Of many flows one begins so high that its numbers end; its peer hears nothing special."""
    sender, receiver = ends(EGRESS, source_symbols=1, repair_symbols=1), ends(source_symbols=1)
    ports = (port for port in range(1, 65535) if id_of(sender.put(b"", port=port)[0]).sbn >> 12 == 0xFFF)
    port, sent = next(ports), [struct.pack("!H", at) for at in range(4100)]
    row = [sender.put(each, port=port)[at % 2] for at, each in enumerate(sent)]
    assert [id_of(each).sbn for each in row[4093:4097]] == [0xFFFFFE, 0xFFFFFF, 0, 1]
    assert receiver.put(*row) == sent
    assert receiver.close()["recovered"] == len(sent) // 2


def test_replays_are_dropped(ends: Ends) -> None:
    """As far as the window reaches; all blocks of it are over."""
    sent = programme(WINDOW - 1)
    row, receiver = pieces(ends, sent), ends()
    lossy = [each for at, each in enumerate(row) if at % PIECES not in (0, 3)]
    assert Counter(receiver.put(*lossy)) == Counter(sent)
    assert receiver.put(*row, *reversed(row)) == []
    counted = receiver.close()
    assert counted["duplicate"] == 2 * len(sent)


def test_a_replay_from_long_ago_does_not_disturb(ends: Ends) -> None:
    """Alone, it is not delivered, and does not end the numbering in use, even if flows begin like that."""
    sent = programme(200)
    row, receiver = pieces(ends, sent), ends()
    receiver.put(*row[: 150 * PIECES])
    for at in range(150, 200):
        now = block(row, at)
        receiver.put(now[0], row[(at * 7) % 90], *now[2:])
        receiver.wait(40)
    assert Counter(receiver.got) == Counter(sent)
    counted = receiver.close()
    assert counted["recovered"] == counted["stale"] == 50
    assert "restarts" not in counted


def test_a_peer_that_began_anew_is_believed(ends: Ends) -> None:
    sent, anew = programme(100), programme(3, seed=2)
    receiver = ends()
    receiver.put(*pieces(ends, sent), *pieces(ends, anew, 7 << 12))
    assert Counter(receiver.got) == Counter([*sent, *anew])
    assert receiver.close()["restarts"] == 1


def test_a_lone_datagram_of_one_that_began_anew_is_delivered_once(ends: Ends) -> None:
    row, receiver = pieces(ends, programme(40)), ends()
    receiver.put(*row)
    lone = marked(b"lone", 7 << 12, 0, K)
    assert receiver.put(lone, lone) == []
    assert receiver.wait(31) == [b"lone"]
    assert receiver.close()["duplicate"] == 1


def test_strangers_in_between_end_no_numbering(ends: Ends) -> None:
    """Anyone can send many without an id; blocks stay open, and what came is remembered."""
    sent = programme(2)
    row, receiver = pieces(ends, sent), ends()
    receiver.put(row[0], row[2], row[3])
    receiver.put(*[b"stranger"] * 40)
    receiver.put(row[K], row[K + 1], *row)
    assert Counter(receiver.got) == Counter({**dict.fromkeys(sent, 1), b"stranger": 40})
    counted = receiver.close()
    assert counted["recovered"] == 1
    assert "restarts" not in counted


# --- checksums ---


def test_what_is_corrupt_stays_so_and_is_made_anew(ends: Ends) -> None:
    sent = programme(1)
    row, receiver = pieces(ends, sent), ends()
    assert receiver.put_packet(damaged(datagram(row[0]), 30)) == REWRITTEN
    receiver.put_packet(damaged(datagram(row[K]), 40))
    assert receiver.put(row[1], row[2], row[3], row[K + 1]) == [*sent[1:], sent[0]]
    assert [len(each) for each in receiver.corrupt] == [len(sent[0])]
    assert receiver.close()["corrupt"] == 2


@pytest.mark.parametrize("at", [-6, -5, -4, -3, -1])
def test_a_corrupt_id_is_not_believed(ends: Ends, at: int) -> None:
    """Blocks are open, with a datagram lost in each: whatever a bit does to an id, all are made anew."""
    sent = programme(40)
    row, receiver = [shifted(each, 56) for each in pieces(ends, sent)], ends()
    receiver.put(*(each for at, each in enumerate(row) if at % PIECES in (0, 1, 3)))
    for mask in (1, 2, 4, 8, 16, 32, 64, 128):
        receiver.put_packet(damaged(datagram(row[39 * PIECES]), at, mask))
    receiver.put(*(each for at, each in enumerate(row) if at % PIECES == K))
    assert Counter(receiver.got) == Counter(sent)
    assert receiver.close()["recovered"] == 40


# --- repairs apart ---


def test_a_held_repair_belongs_to_the_flow_that_it_repairs(ends: Ends) -> None:
    """The flow that brought it ends while it waits. (A module behind fec had held it before.)"""
    apart = {"wire": "rfc6865", "repair_port": 7000, "source_port": 5000}
    sent, sender = programme(1), ends(EGRESS, **apart)
    row = sender.put(*sent)
    behind = [{"module": "impair", "delay_ms": 1}]
    receiver = ends(behind=behind, max_flows=2, give_up_ms=10000, **apart)
    receiver.put(*row[2:K])
    receiver.wait(2)
    receiver.put(row[K], port=7000)
    receiver.wait(1000)
    receiver.put(row[2])
    receiver.put(row[2], port=9000)
    assert receiver.worker.counters()["flows_evicted"] == 1
    receiver.put(row[1])
    receiver.wait(2)
    assert Counter(receiver.got) == Counter([*sent, bare(row[2])])
    assert receiver.close()["recovered"] == 1
