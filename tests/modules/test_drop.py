"""drop: exactly the packets that its predicates name vanish, each direction and flow on its own account."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Passage, Road
from .lengths import datagrams
from .wire import ACK, MILLISECOND, Record, datagram, payload_of, segment

PAYLOADS = [b"", b"a", b"ab", b"abc", b"b", b"ba", b"abcd" * 300]


def passed(road: Road, entry: dict[str, Any], payloads: Sequence[bytes] = PAYLOADS) -> list[bytes]:
    """What is left, the same from hot code and reference."""
    packets = [datagram(each) for each in payloads]
    hot = road([{"module": "drop", **entry}], "egress", packets)
    reference = road([{"module": "drop", **entry}], "egress", packets, reference=True)
    assert (hot.packets, hot.counters) == (reference.packets, reference.counters)
    assert hot.counters[0]["dropped"] == len(payloads) - len(hot.packets)
    return hot.payloads


@pytest.mark.parametrize(
    ("entry", "left"),
    [
        ({}, []),
        ({"prefix": "ab"}, [b"", b"a", b"b", b"ba"]),
        ({"prefix": "ab", "invert": True}, [b"ab", b"abc", b"abcd" * 300]),
        ({"length": "1-2"}, [b"", b"abc", b"abcd" * 300]),
        ({"length": 0}, PAYLOADS[1:]),
        ({"length": "3-", "invert": True}, [b"abc", b"abcd" * 300]),
        ({"prefix": "a", "length": "2-3"}, [b"", b"a", b"b", b"ba", b"abcd" * 300]),
        ({"every": 3}, [b"", b"a", b"abc", b"b", b"abcd" * 300]),
        ({"every": 1}, []),
        ({"prefix": "b", "every": 2}, [b"", b"a", b"ab", b"abc", b"b", b"abcd" * 300]),
    ],
)
def test_predicates(road: Road, entry: dict[str, Any], left: list[bytes]) -> None:
    assert passed(road, entry) == left


@pytest.mark.parametrize("version", [4, 6])
def test_every_length_is_seen_as_it_is(road: Road, version: int) -> None:
    sent = datagrams(version)
    for length in (0, 1, 7, 1472, 9000):
        passage = road([{"module": "drop", "length": length, "invert": True}], "egress", sent)
        assert passage.packets == [each for each in sent if len(payload_of(each)) == length]


def at(times_ms: Sequence[float], payload: bytes = b"x", port: int = 5000) -> list[Record]:
    return [Record(datagram(payload, port=port), int((1000 + each) * MILLISECOND)) for each in times_ms]


def times_ms(passage: Passage) -> list[float]:
    return [record.time_ns / MILLISECOND - 1000 for record in passage.records]


def test_a_packet_rate_lets_the_burst_and_then_its_rate_through(road: Road) -> None:
    chain = [{"module": "drop", "rate_packets_per_s": 100, "burst_packets": 3}]
    sent = at([0, 0, 0, 0, 5, 9, 10, 11, 20, 60, 60, 60, 60])
    for reference in (False, True):
        passage = road(chain, "egress", sent, reference=reference)
        assert times_ms(passage) == [0, 0, 0, 10, 20, 60, 60, 60]
        assert passage.counted() == {"selected": 13, "dropped": 5, "dropped_rate": 5}


def test_a_byte_rate(road: Road) -> None:
    chain = [{"module": "drop", "rate_bytes_per_s": 1000, "burst_bytes": 20}]
    passage = road(chain, "egress", at([0, 1, 9, 10, 10, 11, 30], bytes(10)))
    assert times_ms(passage) == [0, 1, 10, 30]


def test_rates_of_flows_and_of_the_policy(road: Road) -> None:
    sent = [record for port in range(5000, 5010) for record in at([0, 0], port=port)]
    for reference in (False, True):
        for scope, left in (("flow", 10), ("policy", 1)):
            entry = {"module": "drop", "rate_packets_per_s": 1, "burst_packets": 1, "scope": scope}
            assert len(road([entry], "egress", sent, reference=reference).packets) == left


def test_direction_restricts_it(road: Road) -> None:
    chain = [{"module": "drop", "direction": "egress"}]
    sent = [datagram(b"x")]
    assert road(chain, "egress", sent).packets == []
    assert road(chain, "ingress", sent).packets == sent


def test_untagged_datagrams_can_be_dropped(road: Road) -> None:
    """With tag in front, by its first bytes, as README.md says."""
    tagged = road([{"module": "tag", "id": "a", "position": "front"}], "egress", [datagram(b"x")]).packets
    chain = [{"module": "drop", "prefix": "hex:4c 54 01", "invert": True, "direction": "ingress"}]
    assert road(chain, "ingress", [*tagged, datagram(b"x"), datagram(b"")]).packets == tagged


def test_tcp_with_and_without_data(road: Road) -> None:
    sent = [segment(b"", 0), segment(b"data", 0), segment(b"", 4, flags=ACK)]
    passage = road([{"module": "drop", "length": "1-"}], "egress", sent, protocol="tcp")
    assert passage.payloads == [b"", b""]


entries = st.fixed_dictionaries(
    {},
    optional={
        "prefix": st.sampled_from(["", "a", "ab"]),
        "length": st.sampled_from(["0-3", "2-", 1]),
        "invert": st.booleans(),
        "every": st.integers(0, 4),
        "rate_packets_per_s": st.sampled_from([0, 0.5, 1000]),
        "burst_packets": st.integers(1, 4),
        "rate_bytes_per_s": st.sampled_from([0, 2000]),
        "burst_bytes": st.integers(1, 12),
        "scope": st.sampled_from(["flow", "policy"]),
    },
)


waits_ms, ports = st.sampled_from([0, 0.5, 1, 7]), st.integers(5000, 5002)


@given(entry=entries, steps=st.lists(st.tuples(waits_ms, st.sampled_from(PAYLOADS[:6]), ports)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reference_does_the_same(
    road: Road, entry: dict[str, Any], steps: list[tuple[float, bytes, int]]
) -> None:
    now_ms, sent = 0.0, []
    for wait_ms, payload, port in steps:
        now_ms += wait_ms
        sent += at([now_ms], payload, port)
    hot = road([{"module": "drop", **entry}], "ingress", sent)
    reference = road([{"module": "drop", **entry}], "ingress", sent, reference=True)
    assert (hot.records, hot.counters) == (reference.records, reference.counters)
