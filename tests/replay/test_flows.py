"""Flows come and go: idle time-out, eviction, and what a failing module costs."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layer45.replay import Summary, replay

from .captures import NANOSECONDS, START_NS, TAG, Record, configure, ethernet, read, udp, write
from .conftest import balanced

SECOND = 1_000_000_000

FAILING = """
class Module:
    def __init__(self, parameters, count):
        pass

    def egress(self, packet):
        if packet.payload.startswith(b"rewrite"):
            packet.payload = b"changed"
        if packet.payload != b"good":
            raise ValueError("bad payload")
"""
FAILING_MANIFEST = """
[module]
name = "failing"
version = "1.0.0"
abi = 1
kind = "datagram"
language = "python"
summary = "Raises for every payload but one"
inverse = "none"
transports = ["udp"]
directions = ["egress"]
reads = "payload"
"""


def flow_packet(flow: int, at_ns: int) -> Record:
    frame = ethernet(udp(b"payload", sport=1024 + flow))
    return Record(START_NS + at_ns, frame, len(frame))


def send_with(tmp_path: Path, toml: str, records: list[Record]) -> Summary:
    """Through `tag`, with lines of layer45.toml."""
    config = configure(tmp_path / "config", TAG)
    (config / "layer45.toml").write_text(toml)
    source = write(tmp_path / "in.pcap", records, magic=NANOSECONDS)
    summary = replay(config, "bench", "egress", source, tmp_path / "out.pcap")
    assert balanced(summary)
    return summary


def test_a_flow_closes_after_its_idle_time_and_not_before(tmp_path: Path) -> None:
    times = [0, 9, 18, 27, 38, 60]  # idle for 9 s, and then for more than 10 s and its sixteenth
    records = [flow_packet(0, second * SECOND) for second in times]
    summary = send_with(tmp_path, "udp_idle_s = 10", records)
    assert summary.engine["flows_opened"] == 3
    assert summary.engine["flows_idle"] == 2
    assert summary.engine["flows_closed"] == 1


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3 * SECOND)), min_size=1, max_size=120),
    st.integers(1, 8),
)
def test_any_traffic_keeps_the_table_bounded_and_counted(
    tmp_path: Path, steps: list[tuple[int, int]], limit: int
) -> None:
    now, records = 0, []
    for flow, wait in steps:
        now += wait
        records.append(flow_packet(flow, now))
    summary = send_with(tmp_path, f"max_flows = {limit}\nudp_idle_s = 5", records)
    engine = summary.engine
    closed = engine["flows_idle"] + engine["flows_evicted"] + engine["flows_closed"]
    assert engine["flows_opened"] == closed
    assert engine["flows_closed"] <= limit
    assert engine["rewritten"] == len(records)


def test_the_flow_unused_for_longest_makes_room(tmp_path: Path) -> None:
    order = [0, 1, 2, 0, 3, 0, 1, 0]  # 3 takes the place of 1, so 1 begins again and takes that of 2
    records = [flow_packet(flow, at * SECOND) for at, flow in enumerate(order)]
    summary = send_with(tmp_path, "max_flows = 3\nudp_idle_s = 3600", records)
    assert summary.engine["flows_evicted"] == 2
    assert summary.engine["flows_opened"] == 5


@pytest.mark.parametrize(
    ("on_failure", "left"), [("open", [b"good", b"bad", b"rewrite"]), ("closed", [b"good"])]
)
def test_a_failing_module_costs_what_the_policy_says(
    tmp_path: Path, on_failure: str, left: list[bytes]
) -> None:
    """An open policy's packet goes on as it came, also when an earlier change to it was half done."""
    folder = tmp_path / "modules" / "failing"
    folder.mkdir(parents=True)
    (folder / "module.toml").write_text(FAILING_MANIFEST)
    (folder / "failing.py").write_text(FAILING)
    more = f'on_failure = "{on_failure}"'
    config = configure(tmp_path / "config", '{ module = "failing" }', more=more)
    (config / "layer45.toml").write_text(f'module_dirs = ["{folder.parent}"]')
    frames = [ethernet(udp(payload)) for payload in (b"good", b"bad", b"rewrite")]
    source = write(tmp_path / "in.pcap", frames)
    summary = replay(config, "bench", "egress", source, tmp_path / "out.pcap")
    assert balanced(summary)
    assert [record.frame for record in read(tmp_path / "out.pcap")] == [ethernet(udp(each)) for each in left]
    assert summary.engine["module_errors"] == 2
    assert summary.engine[f"failed_{on_failure}"] == 2
