"""10,000 flows through fec at once: with memory for all they fare as one, with too little none is harmed."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from ..modules.wire import Record, datagram
from .residual import CODES, interval
from .through import START_NS, content, counters, fec, through

FLOWS = 10_000
ROOMY = "max_held = 65536\nqueue_length = 131072\nmodule_memory_mb = 256\n"
LOSS = 0.1
NETWORK = f"impair loss_percent={100 * LOSS:g}"  # without a seed: each flow has losses of its own


def in_turn(flows: int, each: int) -> list[Record]:
    """One datagram of each flow in turn, 1 us apart. Flows are told apart by their ports."""
    packets = (datagram(content(at), port=1 + at % flows) for at in range(flows * each))
    return [Record(packet, START_NS + at * 1000) for at, packet in enumerate(packets)]


@pytest.fixture(scope="module")
def sent() -> list[Record]:
    """Two blocks of each."""
    return in_turn(FLOWS, 2 * 10)


def flow_and_payload(records: Iterable[Record]) -> list[bytes]:
    """Destination port and payload."""
    return [record.packet[22:24] + record.payload for record in records]


def assert_unharmed(sent: list[Record], arrived: list[Record]) -> None:
    """Nothing was altered, doubled, or delivered to another flow."""
    received = flow_and_payload(arrived)
    assert len(set(received)) == len(received)
    assert set(received) <= set(flow_and_payload(sent))


def test_ten_thousand_flows_at_once_fare_as_one(tmp_path: Path, sent: list[Record]) -> None:
    """The 99.9 % interval of residual.py holds for the blocks of all flows together."""
    k, m = CODES[0]
    (out, _, back), arrived = through(tmp_path, fec(k, m), NETWORK, sent, ROOMY)
    assert out.engine["flows_opened"] == back.engine["flows_opened"] == FLOWS
    for each in (out, back):
        assert each.engine["memory_empty"] == each.engine["pool_empty"] == each.engine["flows_evicted"] == 0
    assert counters(out)["blocks_full"] == 2 * FLOWS
    assert_unharmed(sent, arrived)
    low, high = interval(LOSS, k, m, 2 * FLOWS, 0.999)
    print(f"{FLOWS} flows: {len(sent) - len(arrived)} of {len(sent)} lost; expected: {low} to {high}")
    assert low <= len(sent) - len(arrived) <= high


def test_ten_thousand_flows_in_too_little_memory(tmp_path: Path, sent: list[Record]) -> None:
    """Memory for some hundred flows: those get their repairs, others lose what the network loses; and
    what was not to be had is counted."""
    settings = "max_held = 64\nmodule_memory_mb = 2\n"
    (out, between, back), arrived = through(tmp_path, fec(*CODES[0]), NETWORK, sent, settings)
    assert out.engine["memory_empty"] > 0 and back.engine["memory_empty"] > 0
    assert counters(out)["sources"] == len(sent)
    assert len(sent) // 2 < counters(out)["unprotected"] < len(sent) - 100 * 10
    assert_unharmed(sent, arrived)
    lost = len(sent) - len(arrived)
    assert lost <= counters(between)["lost"]
    assert counters(back)["arrived"] + counters(back)["recovered"] == len(arrived)
    print(f"{FLOWS} flows in 2 MB: {lost} of {len(sent)} lost, {counters(out)['unprotected']} unprotected")


def test_flows_without_any_memory_go_on(tmp_path: Path) -> None:
    """Far beyond a flow's first blocks, which are easier to believe: ids are taken away, repairs dropped."""
    sent = in_turn(400, 100)
    settings = "max_held = 0\nmodule_memory_mb = 1\n"
    (out, _, back), arrived = through(tmp_path, fec(2, 1), "impair", sent, settings)
    assert counters(back)["no_memory"] > len(sent) // 4
    assert (
        counters(out)["repairs"] == 0 < counters(out)["not_sent"]
    )  # there is nothing to make them from either
    assert_unharmed(sent, arrived)
    assert len(arrived) == len(sent)
