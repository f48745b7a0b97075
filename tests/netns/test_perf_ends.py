"""Benchmarks with an engine at both ends: what went past a queue, or through it unchanged, gives no figure.

host a                                             host b
iperf3, pingpong ask -> queue, engine ---- queue, engine -> iperf3 -s, pingpong echo
"""

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from perf import ends, iperf3, lab, latency, processors
from perf.ends import Traffic
from perf.iperf3 import Case, Load

from .topology import Hosts

pytestmark = pytest.mark.root
USUAL = Load(congestion=Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip())
FEW = latency.Options(200, 2000, processors.one_for_each_host())
SUPER_PACKET_BYTES = 1500  # longer ones were not cut


def beside(hosts: Hosts, _: Traffic) -> AbstractContextManager[ends.Ends]:
    """The C loop, behind rules for another port than the traffic's."""
    return ends.c_loop()(hosts, Traffic(("tcp", "udp"), (9,)))


@pytest.mark.parametrize("case", ["C loop", "look only", "look first", "stream_tag"])
def test_an_unmodified_iperf3_goes_through_both_queues(hosts: Hosts, case: str) -> None:
    found = iperf3.sample(hosts, USUAL, iperf3.TCP[case], 1)
    assert found["gbit_per_s"] > 0
    assert found["engine_cpu_s_per_gb"] > 0


def test_traffic_beside_the_queues_gives_no_figure(hosts: Hosts) -> None:
    with pytest.raises(lab.BenchmarkError, match="bytes came, 0 of them by a queue"):
        iperf3.sample(hosts, USUAL, Case(beside), 1)


def test_flows_that_stay_are_not_taken_for_such_as_leave(hosts: Hosts) -> None:
    with pytest.raises(lab.BenchmarkError, match=r"bytes came, [1-9][0-9]+ of them by a queue"):
        iperf3.sample(hosts, USUAL, Case(ends.ours(iperf3.LOOK), leaves=True), 1)


def test_flows_that_leave_are_not_taken_for_such_as_stay(hosts: Hosts) -> None:
    with pytest.raises(lab.BenchmarkError, match=r"bytes came, [1-9][0-9]+ of them by a queue"):
        iperf3.sample(hosts, USUAL, Case(ends.ours(iperf3.FIRST)), 1)


def test_a_chain_that_does_nothing_is_not_taken_for_one_that_changes_packets(hosts: Hosts) -> None:
    with pytest.raises(lab.BenchmarkError, match="received, none rewritten"):
        iperf3.sample(hosts, USUAL, Case(ends.ours("[]"), changes=True), 1)


@pytest.mark.parametrize("case", ["C loop", "look only"])
@pytest.mark.parametrize("whole", [True, False])
def test_super_packets_are_cut_where_the_case_says_so(hosts: Hosts, case: str, whole: bool) -> None:
    engine = iperf3.TCP[case if whole else f"{case}, no GSO flag"].engine
    with engine(hosts, Traffic(("tcp",), (iperf3.PORT,))) as both, iperf3.server(hosts.b):
        received, _ = iperf3.arrived(iperf3.client(hosts, USUAL, 1), USUAL)
        ends.check(both, received)
        passed = ends.passed(hosts.b)
    assert (passed.sent_bytes / passed.queued > SUPER_PACKET_BYTES) == whole


@pytest.mark.parametrize("load", latency.BESIDE)
def test_every_pass_of_a_round_trip_is_counted(hosts: Hosts, load: str) -> None:
    port = latency.BESIDE[load]
    found = latency.sample(hosts, latency.CASES["C loop"], port, replace(FEW, enough=0.2))  # other tests run
    assert 0 < found["p50_us"] <= found["p999_us"]
    assert (found["load_per_s"] > 0) == (port > 0)


def test_round_trips_beside_the_queues_give_no_figure(hosts: Hosts) -> None:
    with pytest.raises(lab.BenchmarkError, match=r"200 round trips, 0 beside: \[0, 0\] queued"):
        latency.sample(hosts, beside, 0, FEW)


def test_a_round_trip_without_an_answer_gives_no_figure(hosts: Hosts) -> None:
    lossy = "-A INPUT -p udp --sport 9001 -m statistic --mode nth --every 100 --packet 0 -j DROP"
    hosts.a.run(["iptables", *lossy.split()])
    with pytest.raises(lab.BenchmarkError, match="found no answer"):
        latency.sample(hosts, ends.nobody, 0, FEW)
