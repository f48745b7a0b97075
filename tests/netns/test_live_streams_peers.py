"""Peers that do not run the policy, or another one: left alone or refused, and never harmed.

a ── stream_tag ──▶ wire ──▶ nothing, or another chain ── b
"""

import select
import socket
import time
from collections.abc import Iterator

import pytest

from .daemons import client_side, running, server_side
from .datagrams import both_families
from .streams import (
    TAG,
    Road,
    assert_nobody_noticed,
    connection,
    counted,
    crossing,
    customized,
    dial,
    have_raw_table,
    listener,
    noise,
    raise_firewall,
    streams,
    tcp,
    transfers,
)
from .topology import Hosts, two_hosts
from .wire import stream_on_the_wire

pytestmark = pytest.mark.root

STRICT = '{ module = "stream_tag", id = "host-7", unmarked = "drop" }'
OTHER = '{ module = "stream_tag", id = "host-7", every_bytes = 999 }'
HERE = '{ module = "stream_tag", id = "here", expect = "there", unmarked = "drop" }'
THERE = '{ module = "stream_tag", id = "there", expect = "here" }'
PICKY = '{ module = "stream_tag", id = "host-7", expect = "somebody else" }'
CONTENT = noise(400_000)

# Ports, by what runs there: at both ends, only at the client's, only at the server's.
BOTH_STRICT, OTHER_THERE, BOTH_LOCAL, PICKY_THERE = 8100, 8101, 8102, 8103
ONLY_HERE, STRICT_HERE = 8110, 8111
ONLY_THERE, STRICT_THERE = 8120, 8121
BOTH = [
    tcp("strict", BOTH_STRICT, STRICT),
    tcp("other", OTHER_THERE, TAG, OTHER),
    tcp("local", BOTH_LOCAL, HERE, THERE),
    tcp("picky", PICKY_THERE, TAG, PICKY),
]
CLIENTS = [tcp("only_here", ONLY_HERE, TAG), tcp("strict_here", STRICT_HERE, STRICT)]
SERVERS = [tcp("only_there", ONLY_THERE, TAG), tcp("strict_there", STRICT_THERE, STRICT)]


@pytest.fixture(scope="module")
def road() -> Iterator[Road]:
    with two_hosts() as hosts:
        for host in hosts:
            have_raw_table(host)
        with streams(hosts, [*BOTH, *CLIENTS], [*BOTH, *SERVERS]) as (a, b):
            yield Road(hosts, a, b)


@pytest.fixture(autouse=True)
def nobody_notices(road: Road) -> Iterator[None]:
    yield
    assert_nobody_noticed(road.hosts)


def _both_ways(road: Road, family: int, port: int) -> None:
    with connection(road.hosts, family, port) as (client, server):
        ways = [(client, server, CONTENT), (server, client, CONTENT)]
        assert transfers(ways) == [CONTENT, CONTENT]


@both_families
def test_a_server_without_it_is_left_alone(road: Road, family: int) -> None:
    """Nothing is inserted, and the packets of the connection come to the queue no longer."""
    with counted(road.a) as (a,), road.hosts.b.capture(f"tcp port {ONLY_HERE}") as capture:
        _both_ways(road, family, ONLY_HERE)
    assert stream_on_the_wire(capture, ONLY_HERE) == CONTENT
    assert a["connections_alone"] == 1 and a["connections_customized"] == a["only_here.tags"] == 0
    assert a["received"] < 10


@both_families
def test_a_client_without_it_is_left_alone(road: Road, family: int) -> None:
    with counted(road.b) as (b,):
        for _ in range(3):
            _both_ways(road, family, ONLY_THERE)
    assert b["connections_alone"] == 3 and b["connections_customized"] == b["only_there.tags"] == 0
    assert b["received"] < 30


@both_families
def test_a_strict_client_hears_at_once_that_it_is_refused(road: Road, family: int) -> None:
    with counted(road.a) as (a,), listener(road.hosts.b, family, STRICT_HERE):
        begun = time.monotonic()
        with pytest.raises(ConnectionRefusedError):
            dial(road.hosts.a, road.hosts.b, family, STRICT_HERE).close()
        assert time.monotonic() - begun < 2
    assert a["connections_refused"] == 1 and a["connections_customized"] == 0


@both_families
def test_a_strict_server_takes_no_client_without_it(road: Road, family: int) -> None:
    """Its program never hears of them."""
    with counted(road.b) as (b,), listener(road.hosts.b, family, STRICT_THERE) as waiting:
        waiting.settimeout(0.3)
        client = road.hosts.a.socket(family, socket.SOCK_STREAM)
        client.settimeout(1.5)
        with client, pytest.raises(OSError):
            client.connect((road.hosts.b.address(family), STRICT_THERE))
        with pytest.raises(TimeoutError):
            waiting.accept()
    assert b["connections_refused"] > 0 and b["connections_customized"] == 0


@both_families
def test_strict_ends_whose_syns_cross(road: Road, family: int) -> None:
    """Such a connection would stay as it is: there is none."""
    with counted(*road.daemons) as (a, b), crossing(road.hosts, family, BOTH_STRICT) as ends:
        assert not select.select([], ends, [], 3.5)[1]
    assert min(each["connections_refused"] for each in (a, b)) > 0
    assert a["connections_alone"] == b["connections_alone"] == 0


@both_families
def test_strict_ends_take_each_other(road: Road, family: int) -> None:
    with counted(*road.daemons) as (a, b):
        _both_ways(road, family, BOTH_STRICT)
    assert a["connections_customized"] == b["connections_customized"] == 1


@both_families
def test_other_parameters_are_left_alone(road: Road, family: int) -> None:
    """Shared ones differ: no tags either way."""
    with counted(*road.daemons) as found:
        _both_ways(road, family, OTHER_THERE)
    for each in found:
        assert each["connections_alone"] == 1 and each["connections_customized"] == 0
        assert each["other.tags"] == each["other.stripped"] == 0


def test_local_parameters_may_differ(road: Road) -> None:
    """Identities, what is expected of the peer's, and strictness are each end's own."""
    with counted(*road.daemons) as (a, b):
        _both_ways(road, socket.AF_INET, BOTH_LOCAL)
    assert a["connections_customized"] == b["connections_customized"] == 1
    assert a["local.wrong_identity"] == b["local.wrong_identity"] == 0


def test_a_wrong_identity_gets_nothing_through(road: Road) -> None:
    """The connection opens, but b takes no byte."""
    with (
        counted(*road.daemons) as (a, b),
        connection(road.hosts, socket.AF_INET, PICKY_THERE) as (client, server),
    ):
        client.send(b"may I?")
        server.settimeout(0.7)
        with pytest.raises(TimeoutError):
            server.recv(1)
    assert b["picky.wrong_identity"] > 0
    assert a["connections_customized"] == b["connections_customized"] == 1


def test_a_connection_that_was_there_before_is_left_alone(hosts: Hosts) -> None:
    """Its SYN was not seen. A new one is customized, and behind the daemons' end the old one goes on."""
    for host in hosts:
        raise_firewall(host)
    service = [tcp("late", BOTH_STRICT, TAG)]
    with connection(hosts, socket.AF_INET, BOTH_STRICT) as (client, server):
        ways = [(client, server, CONTENT), (server, client, CONTENT)]
        assert transfers(ways) == [CONTENT, CONTENT]
        with running(hosts.a, client_side(service)) as a, running(hosts.b, server_side(service)) as b:
            assert transfers(ways) == [CONTENT, CONTENT]
            assert customized(a) == customized(b) == 0
            with connection(hosts, socket.AF_INET, BOTH_STRICT) as (again, there):
                assert transfers([(again, there, CONTENT)]) == [CONTENT]
            assert customized(a) == customized(b) == 1
        assert transfers(ways) == [CONTENT, CONTENT]
    assert_nobody_noticed(hosts)
