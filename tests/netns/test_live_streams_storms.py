"""Many connections: ten thousand short ones, and a flood of SYNs beside one that goes on.

a: ab, a flood ── stream_tag ──▶ wire ──▶ stream_tag ── b: lighttpd
"""

import re
import socket
from pathlib import Path

import pytest

from .daemons import assert_no_checksum_errors, eventually
from .stream_programs import WEB, lighttpd
from .stream_storms import known_connections, resident_bytes, syn_flood
from .streams import (
    TAG,
    connection,
    counted,
    listener,
    noise,
    streams,
    tcp,
    transfers,
)
from .topology import Hosts
from .wire import tcp_segments

pytestmark = pytest.mark.root

CONNECTIONS, AT_ONCE = 10_000, 20
SYNS, MAX_FLOWS = 20_000, 1000
GROWTH_BYTES = 24 << 20  # of a daemon


def test_ten_thousand_short_connections(hosts: Hosts, tmp_path: Path) -> None:
    """Each is customized, each answer is whole; soon after nothing is left of them."""
    (tmp_path / "page").write_bytes(noise(3000))
    argv = ["ab", "-q", "-n", str(CONNECTIONS), "-c", str(AT_ONCE), f"http://{hosts.b.ipv4}:{WEB}/page"]
    with (
        streams(hosts, [tcp("web", WEB, TAG)], settings="tcp_idle_s = 3") as daemons,
        lighttpd(hosts.b, tmp_path),
    ):
        before = [resident_bytes(daemon) for daemon in daemons]
        with counted(*daemons) as found:
            told = hosts.a.run(argv).stdout
        assert re.search(rf"Complete requests: +{CONNECTIONS}\n", told), told
        assert re.search(r"Failed requests: +0\n", told) and "Non-2xx" not in told, told
        for each in found:
            assert each["connections_customized"] == each["flows_opened"]
            assert 0 <= each["flows_opened"] - CONNECTIONS <= AT_ONCE  # ab opens a few too many
            assert each["connections_alone"] == each["flows_evicted"] == 0
        for daemon, had in zip(daemons, before, strict=True):
            assert resident_bytes(daemon) < had + GROWTH_BYTES
        eventually(lambda: [known_connections(daemon) for daemon in daemons] == [0, 0], 8)


def _offer(hosts: Hosts, port: int) -> bytes:
    """The option in front of all others in the SYN of a connection to this port."""
    with hosts.b.capture(f"tcp dst port {port}") as capture, connection(hosts, socket.AF_INET, port):
        pass
    opens = next(each for each in tcp_segments(capture) if each.flags == 2)
    assert opens.options[:4] == b"\xfd\x08\x4c\x45"
    return opens.options[:8]


@pytest.mark.parametrize("offers", [True, False], ids=["offers", "bare"])
def test_a_flood_of_syns_beside_a_good_connection(hosts: Hosts, offers: bool) -> None:
    """It evicts what has not begun, never what lives."""
    content = noise(30_000_000)
    with (
        streams(hosts, [tcp("web", 8500, TAG)], settings=f"max_flows = {MAX_FLOWS}") as (_, b),
        connection(hosts, socket.AF_INET, 8500) as (client, server),
    ):
        option = _offer(hosts, 8500) if offers else b""
        before = resident_bytes(b)
        with counted(b) as (there,), listener(hosts.b, socket.AF_INET, 8500, 1024):
            syn_flood(hosts.a, hosts.b, 8500, SYNS // 2, option)
            ways = [(client, server, content), (server, client, content)]
            assert transfers(ways) == [content, content]
            syn_flood(hosts.a, hosts.b, 8500, SYNS // 2, option)
            assert transfers(ways) == [content, content]
        assert there["flows_opened"] > MAX_FLOWS and there["flows_evicted"] > 0
        assert known_connections(b) <= MAX_FLOWS
        assert resident_bytes(b) < before + GROWTH_BYTES
    assert_no_checksum_errors(*hosts)
