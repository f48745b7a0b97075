"""More customized connections than the flow table and the map of known ones have room for.

a: 40 connections at once, to a table for 4 and a map for 16 ──▶ wire ──▶ b: servers, with room for all
"""

import contextlib
import socket

import pytest

from .daemons import assert_balanced, client_side, eventually, running, server_side
from .streams import dial, engine, listener, noise, received, stats, tcp
from .topology import Hosts

pytestmark = pytest.mark.root

SETTINGS = "max_flows = 4"
OPEN = tcp("web", 8080, '{ module = "stream_tag", id = "x" }')
STRICT = tcp("strict", 8081, '{ module = "stream_tag", id = "x", unmarked = "drop" }')
MANY = 40


def test_what_finds_no_room_goes_alone_or_waits(hosts: Hosts) -> None:
    """No stream is damaged; forgotten connections are closed; a strict policy's connection is never plain."""
    with (
        running(hosts.a, client_side([OPEN, STRICT]), SETTINGS) as a,
        running(hosts.b, server_side([OPEN, STRICT])) as b,
        contextlib.ExitStack() as ends,
    ):
        waiting = ends.enter_context(listener(hosts.b, socket.AF_INET, 8080))
        strict = ends.enter_context(listener(hosts.b, socket.AF_INET, 8081))
        pairs = []
        with hosts.b.capture("tcp port 8081") as capture:
            for _ in range(MANY):
                client = ends.enter_context(dial(hosts.a, hosts.b, socket.AF_INET, 8080))
                pairs.append((client, ends.enter_context(waiting.accept()[0])))
            client = ends.enter_context(dial(hosts.a, hosts.b, socket.AF_INET, 8081))
            server = ends.enter_context(strict.accept()[0])
            client.sendall(noise(3000))
            assert received(server, 3000) == noise(3000)
        assert noise(3000)[:1100] not in capture.content  # a tag stands in it
        eventually(lambda: "customized connections were forgotten" in a.log.read_text(), 3)
        went_on = sum(transferred(*pair) for pair in pairs)
        now = engine(a)
        assert now["known_errors"] > 0 and now["connections_lost"] > 0
        assert now["connections_refused"] > 0
        assert MANY - now["connections_lost"] <= went_on < MANY
        assert engine(b)["connections_alone"] > 0
        for daemon in (a, b):
            assert_balanced(stats(daemon))
        with dial(hosts.a, hosts.b, socket.AF_INET, 8080) as last, waiting.accept()[0] as other:
            assert transferred(last, other)


def transferred(client: socket.socket, server: socket.socket) -> bool:
    """Whether the connection lives still; AssertionError when something else arrives than was sent."""
    try:
        client.sendall(noise(3000, 1))
        arrived = received(server, 3000)
    except OSError:
        return False
    assert arrived in (b"", noise(3000, 1))
    return bool(arrived)
