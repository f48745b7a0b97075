"""Kernel chains over a daemon's life: reloads, states, versions, its successor, its end however it comes.

a: clients, the daemon ──▶ wire ──▶ b: echo servers
"""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from layer45.rules import backend, pins
from layer45.rules.diversion import Diversion, QueueGroup, RulePlan, Selector
from layer45.rules.kernel_chain import EGRESS_PACKETS, KernelChain
from layer45.rules.kernel_chains import KernelChains

from .daemons import Daemon, Service, client_side, eventually, ruleset, running
from .datagrams import Stream, connected, echo, exchange
from .kernel_chains import counted, path_of, pinned, queued
from .rule_plans import MARKS
from .topology import Host, Hosts

pytestmark = pytest.mark.root

COUNT = Service("count", 7001, path="auto")
DROP = Service("drop", 7002, '{ module = "drop", prefix = "ab" }', path="auto")
QUEUED = Service("queued", 7003, '{ module = "tag", id = "x", direction = "ingress" }')
SENT, LEFT = [b"abc", b"b"], [b"b"]


@contextlib.contextmanager
def road(hosts: Hosts, *services: Service, settings: str = "") -> Iterator[tuple[Daemon, socket.socket]]:
    """The daemon, and a client of the last service; nothing is pinned in the end."""
    with (
        echo(hosts.b, 7001, 7002, 7003),
        connected(hosts.a, socket.AF_INET, hosts.b, services[-1].port) as end,
    ):
        with running(hosts.a, client_side(services), settings) as a:
            owner = a.ask("status")["rules"]["owner"]
            yield a, end
        assert left_pinned(hosts.a, owner) == []


def left_pinned(host: Host, owner: str) -> list[str]:
    with host.entered():
        return [each.name for place in pins.existing(owner) for each in place.iterdir()]


def test_a_reload_keeps_what_an_unchanged_chain_counted(hosts: Hosts) -> None:
    """Whatever comes and goes beside it; a chain that changes begins anew, as in the queue."""
    with road(hosts, COUNT, DROP) as (a, client):
        assert exchange(client, SENT, 0.3) == LEFT
        before = counted(a, "drop")
        assert before["packets"] == 3 and a.counters("drop", "drop")["dropped"] == 1
        a.reload(client_side([DROP, QUEUED]))
        assert counted(a, "drop") == before
        assert pinned(a) and not [name for name in pinned(a) if name.startswith("chain1")]  # who went
        a.reload(client_side([replace(DROP, rest='mtu = "signal"')]))
        assert counted(a, "drop")["packets"] == 0
        assert exchange(client, SENT, 0.3) == LEFT and counted(a, "drop")["packets"] == 3
        a.reload(client_side([replace(DROP, path="queue")]))
        assert (counted(a, "drop")["packets"], path_of(a, "drop")) == (0, ("queue", ""))
        assert exchange(client, SENT, 0.3) == LEFT and queued(a) == counted(a, "drop")["packets"] == 3
        assert a.stats()["kernel"]["received"] == 6 and pinned(a) == []


def test_a_reload_that_is_refused_changes_nothing(hosts: Hosts) -> None:
    with road(hosts, DROP) as (a, client):
        assert exchange(client, SENT, 0.3) == LEFT
        a.expected = ("reload failed; nothing changed",)
        before, names = counted(a, "drop"), pinned(a)
        a.configure(client_side([replace(DROP, chain='{ module = "drop", prefix = "b", every = "x" }')]))
        assert a.host.run(a.command("reload"), check=False).returncode == 1
        assert (counted(a, "drop"), pinned(a)) == (before, names)
        assert exchange(client, SENT, 0.3) == LEFT


def test_packets_go_on_while_rules_change(hosts: Hosts) -> None:
    with road(hosts, COUNT) as (a, client), Stream(client, 2000) as stream:
        for at in range(6):
            a.reload(client_side([COUNT, *([DROP], [QUEUED], [])[at % 3]]))
        stream.stop()
        stream.assert_complete()
        assert counted(a, "count")["egress_packets"] == stream.sent == counted(a, "count")["ingress_packets"]


def test_states(hosts: Hosts) -> None:
    """A deprecated policy has the flows that it had, one on standby none; both without the queue."""
    with road(hosts, DROP) as (a, client):
        assert exchange(client, SENT, 0.3) == LEFT
        a.host.run(a.command("deprecate", "drop"))
        with connected(hosts.a, socket.AF_INET, hosts.b, 7002) as later:
            assert exchange(later, SENT, 0.3) == SENT
        assert exchange(client, SENT, 0.3) == LEFT and a.counters("drop", "drop")["dropped"] == 2
        a.host.run(a.command("deactivate", "drop"))
        assert exchange(client, SENT, 0.3) == SENT and pinned(a) == []
        a.host.run(a.command("activate", "drop"))
        assert exchange(client, SENT, 0.3) == LEFT
        assert a.counters("drop", "drop")["dropped"] == 1 and queued(a) == 0
        a.host.run(a.command("revoke", "drop"))
        assert exchange(client, SENT, 0.3) == SENT


def test_a_revoked_closed_policy_lets_nothing_through(hosts: Hosts) -> None:
    with road(hosts, replace(DROP, rest='on_failure = "closed"')) as (a, client):
        assert exchange(client, SENT, 0.3) == LEFT
        a.host.run(a.command("revoke", "drop"))
        with pytest.raises(PermissionError):
            client.send(b"b")


def test_versions(hosts: Hosts) -> None:
    """Old flows keep the old chain; both run in the kernel; the old one goes with its flows."""
    with road(hosts, replace(DROP, rest='version = "1"')) as (a, client):
        assert exchange(client, SENT, 0.3) == LEFT
        a.reload(client_side([replace(DROP, chain="", rest='version = "2"')]))
        with connected(hosts.a, socket.AF_INET, hosts.b, 7002) as later:
            assert exchange(later, SENT, 0.3) == SENT
        assert exchange(client, SENT, 0.3) == LEFT
        status = next(each for each in a.ask("status")["policies"] if each["name"] == "drop")
        old, new = sorted(each["class"] for each in status["versions"])
        assert {f"chain{old}-begun-drops", f"chain{new}-begun-passes"} < set(pinned(a))
        assert queued(a) == 0


@pytest.mark.parametrize("rest", ["", 'on_failure = "closed"'], ids=["open", "closed"])
def test_a_killed_daemon_does_not_matter_to_it(hosts: Hosts, rest: str) -> None:
    """What passes passes, what is dropped is dropped; the next daemon takes over, and counts anew."""
    with road(hosts, replace(DROP, rest=rest)) as (a, client):
        assert exchange(client, SENT, 0.3) == LEFT
        a.kill()
        assert exchange(client, SENT * 3, 0.3) == LEFT * 3
        a.start()
        assert counted(a, "drop")["packets"] == 0
        assert exchange(client, SENT, 0.3) == LEFT
        assert (counted(a, "drop")["packets"], queued(a)) == (3, 0)


def test_rules_that_a_killed_daemon_left_are_removed_with_all_names(hosts: Hosts) -> None:
    before = ruleset(hosts.a)
    with running(hosts.a, client_side([DROP])) as a:
        owner = a.ask("status")["rules"]["owner"]
        a.kill()
        assert left_pinned(hosts.a, owner)
        a.host.run(a.command("rules", "--remove"))
        assert left_pinned(hosts.a, owner) == [] and ruleset(hosts.a) == before


def test_a_new_daemon_takes_over(hosts: Hosts) -> None:
    """No packet is lost or passes that is to be dropped; it counts from its own beginning on."""
    with road(hosts, DROP, COUNT) as (a, client), Stream(client, 1000) as stream:
        with connected(hosts.a, socket.AF_INET, hosts.b, 7002) as dropped:
            assert exchange(dropped, SENT, 0.3) == LEFT
            a.restart()
            assert exchange(dropped, SENT, 0.3) == LEFT
            assert (counted(a, "drop")["packets"], a.counters("drop", "drop")["dropped"]) == (3, 1)
        stream.stop()
        stream.assert_complete()
        assert 0 < counted(a, "count")["egress_packets"] < stream.sent
        assert queued(a) == 0 and path_of(a, "count") == ("kernel", "")


def test_who_gets_its_packets_back_counts_them_again(hosts: Hosts) -> None:
    """A successor that ends on its way has given the names to programs of its own."""
    chain = KernelChain("text", ("udp",))
    to = Selector(("udp",), remote_port=((7001, 7001),))
    diversion = Diversion("p", 1, to, None, QueueGroup(4500, 1, True), kernel=chain)
    plan = RulePlan("test", MARKS, (diversion,))
    first, second = KernelChains(), KernelChains()
    with echo(hosts.b, 7001), connected(hosts.a, socket.AF_INET, hosts.b, 7001) as client:
        try:
            for counts, rests in ((first, second), (second, first), (first, second)):
                with hosts.a.entered():
                    counts.prepare(plan)
                    backend.install(plan, "iptables")
                had = [each.counted().of_class.get(1, [0])[EGRESS_PACKETS] for each in (counts, rests)]
                assert exchange(client, [b"1", b"2"]) == [b"1", b"2"]
                now = [each.counted().of_class.get(1, [0])[EGRESS_PACKETS] for each in (counts, rests)]
                assert now == [had[0] + 2, had[1]]
        finally:
            first.close()
            second.close()
            with hosts.a.entered():
                backend.remove("test")
                assert pins.existing("test") == []


def test_programs_of_a_policy_by_name(hosts: Hosts) -> None:
    """Where the socket's tag stands in the packet's mark until the policy has seen it."""
    text = f'[policy.all]\nmatch = {{ protocol = "udp", program = "python3" }}\nchain = [ {DROP.chain} ]\n'
    with running(hosts.a, text) as a, echo(hosts.b, 7001):
        said = a.host.run(["python3", "-c", CLIENT.format(hosts.b.ipv4)]).stdout
        assert said == "b'b'\n"
        eventually(lambda: a.counters("all", "drop")["dropped"] == 1)
        assert counted(a, "all")["packets"] == 3 and queued(a) == 0


CLIENT = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
    end.connect(("{}", 7001))
    end.send(b"ab")
    end.send(b"b")
    print(end.recv(9))
"""
