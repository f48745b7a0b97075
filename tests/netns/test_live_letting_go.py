"""Flows that a chain is done with: the rest stays in the kernel, and comes again when the chain is another.

a: a module that swaps upper and lower case of a flow's first packets ──▶ wire ──▶ b: an echo server
"""

import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layer45.config import Settings

from .daemons import (
    Daemon,
    Service,
    assert_balanced,
    assert_no_checksum_errors,
    client_side,
    running,
    server_side,
)
from .datagrams import both_families, connected, echo, exchange
from .site_modules import FIRST, write_module
from .topology import Host, Hosts

pytestmark = pytest.mark.root

PORT = 7001
LIMIT = 3
DONE = Settings().marks.exempt_bit
STRAGGLERS_S = 1.2  # fastpath/leave.pyx: later packets of a flow that left begin a new one


def _first(limit: int = LIMIT, **more: str) -> Service:
    return Service("first", PORT, f'{{ module = "first", word = "{limit}" }}', **more)


def _settings(folder: Path, transport: str = "udp", lets_go: bool = True) -> str:
    return write_module(folder, "first", FIRST, transport, lets_go)


def _has_left(host: Host) -> bool:
    """Whether conntrack has the mark of such a flow."""
    code = f"from layer45.rules.conntrack import has_mark; print(has_mark({DONE}, {DONE}))"
    return {"True\n": True, "False\n": False}[host.run([sys.executable, "-c", code]).stdout]


def _queued(host: Host) -> int:
    """How many packets its queues have had."""
    rows = host.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout.splitlines()
    return sum(int(row.split()[7]) for row in rows)


def _swapped(client: socket.socket, count: int) -> list[bool]:
    """Of so many datagrams, one after another: whether each came back changed."""
    answers = [exchange(client, [b"word %d" % number])[0] for number in range(count)]
    assert [answer.lower() for answer in answers] == [b"word %d" % number for number in range(count)]
    return [answer.isupper() for answer in answers]


@both_families
def test_what_is_left_of_a_flow_never_comes(hosts: Hosts, family: int, tmp_path: Path) -> None:
    """Both directions count; the queue gets no packet more, however many there are."""
    with (
        running(hosts.a, client_side([_first()]), settings=_settings(tmp_path)) as a,
        echo(hosts.b, PORT),
        connected(hosts.a, family, hosts.b, PORT) as client,
    ):
        assert _swapped(client, 1) == [False]  # there and back
        assert _swapped(client, 1) == [True]  # the third of the flow, and the last
        queued = _queued(hosts.a)
        assert not any(_swapped(client, 50))
        assert _queued(hosts.a) == queued
        assert a.engine()["flows_left"] == 1
        assert a.engine()["leave_errors"] == 0
        assert [flow["state"] for flow in a.flows()] == ["left"]
        with connected(hosts.a, family, hosts.b, PORT) as other:
            assert _swapped(other, 2) == [False, True]  # another flow is another
        assert_balanced(a.stats())
        assert _has_left(hosts.a)
    assert not _has_left(hosts.a)
    assert_no_checksum_errors(*hosts)


@both_families
def test_a_flow_that_another_host_began(hosts: Hosts, family: int, tmp_path: Path) -> None:
    """The server's daemon is done with it."""
    with (
        running(hosts.b, server_side([_first()]), settings=_settings(tmp_path)) as b,
        echo(hosts.b, PORT),
        connected(hosts.a, family, hosts.b, PORT) as client,
    ):
        assert _swapped(client, 12) == [False, True, *[False] * 10]
        engine = b.engine()
        assert (engine["flows_left"], engine["leave_errors"]) == (1, 0)
        assert engine["received"] in (3, 4)  # an answer may be faster than conntrack is told


def test_who_has_left_does_not_come_to_another_policy(hosts: Hosts, tmp_path: Path) -> None:
    """Though one that any socket has stands behind it."""
    match = 'priority = -1\nmatch = { protocol = "udp" }'
    other = f'[policy.other]\n{match}\nchain = {{ module = "first", word = "1000" }}\n'
    with (
        running(hosts.b, server_side([_first()]) + other, settings=_settings(tmp_path)) as b,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
    ):
        assert _swapped(client, 6) == [False, True, *[False] * 4]
        assert b.policy("other")["packets"] == 0


def test_a_tcp_stream_goes_on_in_the_kernel(hosts: Hosts, tmp_path: Path) -> None:
    """All of it arrives, the first segments changed; a new connection from the same port is a new flow."""
    with (
        running(hosts.a, client_side([_first(1, protocol="tcp")]), settings=_settings(tmp_path, "tcp")) as a,
        hosts.b.socket(socket.AF_INET, socket.SOCK_STREAM) as server,
    ):
        server.bind((hosts.b.ipv4, PORT))
        server.listen()
        for _ in range(2):
            with hosts.a.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends by a reset
                client.bind((hosts.a.ipv4, 30000))
                client.connect((hosts.b.ipv4, PORT))
                accepted, _ = server.accept()
                with accepted:
                    client.sendall(b"first")
                    assert accepted.recv(5, socket.MSG_WAITALL) == b"FIRST"
                    queued = _queued(hosts.a)
                    for _ in range(100):
                        client.sendall(b"then" * 10_000)
                        assert accepted.recv(40_000, socket.MSG_WAITALL) == b"then" * 10_000
                    assert _queued(hosts.a) - queued < 50  # of some 3000: those before conntrack is told
        assert a.engine()["flows_left"] == 2
    assert_no_checksum_errors(*hosts)


def _unchanged(a: Daemon) -> None:
    a.reload(client_side([_first(), Service("other", 7002, '{ module = "tag", id = "x" }')]))


def _changed(a: Daemon) -> None:
    a.reload(client_side([_first(LIMIT + 1)]))


def _kill_and_start(a: Daemon) -> None:
    a.kill()
    a.start()


def _off_and_on(a: Daemon) -> None:
    a.ask("deactivate", "first")
    a.ask("activate", "first")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_unchanged, [False, False]),
        (_changed, [True, True]),  # a request and its answer are changed and changed back, but for the last
        (_kill_and_start, [False, True]),
        (_off_and_on, [False, True]),
    ],
    ids=["unchanged", "changed", "killed", "deactivated"],
)
def test_a_changed_chain_gets_its_flows_back(
    hosts: Hosts, tmp_path: Path, change: Callable[[Daemon], None], expected: list[bool]
) -> None:
    """Those of an unchanged one stay where they are."""
    with (
        running(hosts.a, client_side([_first()]), settings=_settings(tmp_path)) as a,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
    ):
        assert _swapped(client, 3) == [False, True, False]
        change(a)
        if change is _changed:
            assert _swapped(client, 3) == [False, False, False]
            assert a.engine()["flows_left"] == 2
        else:
            assert _swapped(client, 2) == expected


def test_what_conntrack_forgets_comes_as_a_new_flow(hosts: Hosts, tmp_path: Path) -> None:
    """Here, another program's rule takes its mark away."""
    wiped = "-p udp -m string --algo bm --string wiped"
    hosts.a.run(
        ["iptables", *f"-t mangle -A POSTROUTING {wiped} -j CONNMARK --set-xmark 0/0xffffffff".split()]
    )
    with (
        running(hosts.a, client_side([_first()]), settings=_settings(tmp_path)) as a,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
    ):
        assert _swapped(client, 2) == [False, True]
        time.sleep(STRAGGLERS_S)
        assert exchange(client, [b"wiped"]) == [b"wiped"]
        assert _swapped(client, 4) == [False, True, False, False]
        assert a.engine()["flows_left"] == 2


def test_where_conntrack_does_not_know_the_flow(hosts: Hosts, tmp_path: Path) -> None:
    """Its packets still come, but the module gets none of them."""
    for chain in ("OUTPUT", "PREROUTING"):
        hosts.a.run(["iptables", *f"-t raw -A {chain} -p udp -j CT --notrack".split()])
    with (
        running(hosts.a, client_side([_first()]), settings=_settings(tmp_path)) as a,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
    ):
        assert _swapped(client, 10) == [False, True, *[False] * 8]
        engine = a.engine()
        assert (engine["flows_left"], engine["leave_errors"], engine["received"]) == (0, 1, 20)


@pytest.mark.parametrize(
    "rule",
    [
        "POSTROUTING -p udp --dport 7001 -j MASQUERADE --to-ports 40000-40010",
        "OUTPUT -p udp --dport 7001 -j DNAT --to-destination {peer}:7009",
    ],
    ids=["source", "destination"],
)
def test_behind_address_translation(hosts: Hosts, tmp_path: Path, rule: str) -> None:
    """conntrack's tuples differ from what our hooks see; a translated destination answers in another flow."""
    rule = rule.format(peer=hosts.b.ipv4)
    hosts.a.run(["iptables", "-t", "nat", "-A", *rule.split()])
    with (
        running(hosts.a, client_side([_first()]), settings=_settings(tmp_path)) as a,
        echo(hosts.b, PORT, 7009),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
    ):
        assert True in _swapped(client, 4) or "DNAT" in rule
        queued = _queued(hosts.a)
        assert not any(_swapped(client, 10))
        assert _queued(hosts.a) == queued
        assert a.engine()["leave_errors"] == 0


def test_a_module_that_does_not_declare_it_is_asked_on(hosts: Hosts, tmp_path: Path) -> None:
    """done() says so, and changes nothing."""
    with (
        running(hosts.a, client_side([_first()]), settings=_settings(tmp_path, lets_go=False)) as a,
        echo(hosts.b, PORT),
        connected(hosts.a, socket.AF_INET, hosts.b, PORT) as client,
    ):
        _swapped(client, 10)
        assert (a.engine()["flows_left"], a.engine()["rewritten"]) == (0, 20)
