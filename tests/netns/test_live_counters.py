"""What people and programs see of a module's counters: by flow, as ratios, and once in the log.

a: clients ── tally ──▶ wire ──▶ b: echo server
"""

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layer45.module_build import build_module

from .daemons import Daemon, Service, assert_balanced, client_side, eventually, running
from .datagrams import Stream, connected, echo, exchange
from .topology import Hosts, two_hosts

pytestmark = pytest.mark.root

TALLY = Path(__file__).parents[1] / "unit" / "tally"
NOTICE = (
    'event="a module has something to tell" policy=told module=tally counter=strange meaning="payloads that'
)
CHANGED = Service("told", 7001, '{ module = "tally" }, { module = "tally" }')
TOLD = Service("told", 7001, '{ module = "tally" }')
OTHER = Service("other", 7002, '{ module = "tag", id = "x", direction = "ingress" }')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the module `tally`."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(TALLY, site / "tally")
    build_module(site / "tally")
    return site


@pytest.fixture
def road(site: Path) -> Iterator[tuple[Hosts, Daemon]]:
    with (
        two_hosts() as hosts,
        running(hosts.a, client_side([TOLD, OTHER]), f'module_dirs = ["{site}"]') as a,
        echo(hosts.b, 7001, 7002),
    ):
        yield hosts, a


def tallied(seen: int, seen_bytes: int) -> dict[str, Any]:
    counters = {"seen": seen, "seen_bytes": seen_bytes}
    return {"module": "tally", "counters": counters, "ratios": {"mean_bytes": seen_bytes / seen}}


def text(daemon: Daemon, command: str) -> list[str]:
    """What a person sees."""
    return daemon.host.run(daemon.command(command)).stdout.splitlines()


def test_flows_and_stats_have_counters_and_ratios(road: tuple[Hosts, Daemon]) -> None:
    hosts, a = road
    for family, port, sent in (
        (socket.AF_INET, 7001, [b"four", b"four", b"?"]),
        (socket.AF_INET6, 7001, [b"sixsix"]),
        (socket.AF_INET, 7002, [b"x"]),
    ):
        with connected(hosts.a, family, hosts.b, port) as client:
            assert exchange(client, sent) == sent
    flows = a.flows()
    assert [flow["instances"] for flow in flows if flow["policy"] == "told"] == [
        [tallied(6, 18)], [tallied(2, 12)],
    ]  # fmt: skip
    assert [flow["instances"] for flow in flows if flow["policy"] == "other"] == [[]]
    head, *rows = text(a, "flows")
    assert head.endswith("COUNTED") and "INSTANCES" not in head
    assert sum(row.endswith("tally: seen 6, seen_bytes 18, mean_bytes 3") for row in rows) == 1
    stats = a.stats()
    (instance,) = stats["policies"]["told"]["instances"]
    assert instance["counters"] == {"seen": 8, "seen_bytes": 30, "strange": 2}
    assert instance["ratios"] == {"mean_bytes": 3.75, "strange_share": 0.25}
    assert stats["help"]["tally.mean_bytes"] == "bytes a payload"
    lines = [line.split() for line in text(a, "stats")]
    assert ["1", "tally:", "mean_bytes", "3.75", "bytes", "a", "payload"] in lines
    assert_balanced(stats)


def test_a_notice_is_logged_once_for_each_chain(road: tuple[Hosts, Daemon]) -> None:
    hosts, a = road

    def noticed() -> int:
        return a.log.read_text().count(NOTICE)

    with connected(hosts.a, socket.AF_INET, hosts.b, 7001) as client:
        exchange(client, [b"plain"])
        time.sleep(1.5)
        assert noticed() == 0
        exchange(client, [b"?"])
        eventually(lambda: noticed() == 1)
        a.reload(client_side([TOLD]))
        exchange(client, [b"?"])
        time.sleep(1.5)
        assert noticed() == 1
        a.reload(client_side([CHANGED]))
        exchange(client, [b"?"])
        eventually(lambda: noticed() == 2)


def test_flows_are_read_while_packets_flow_and_chains_change(road: tuple[Hosts, Daemon]) -> None:
    hosts, a = road
    with connected(hosts.a, socket.AF_INET, hosts.b, 7001) as client, Stream(client, 1000) as stream:
        for at in range(10):
            a.reload(client_side([(TOLD, CHANGED)[at % 2]]))
            for flow in a.flows():
                assert all(0 <= each["counters"]["seen"] <= 2 * stream.sent + 2 for each in flow["instances"])
        stream.stop()
        stream.assert_complete()
        assert_balanced(a.stats(), ("no_class",))
