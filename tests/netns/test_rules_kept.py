"""Rules of policies that no new flow gets: those that had the class before keep it, or are dropped.

host a: rules, alice's sockets  ───>  host b: a server
"""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from layer45.rules import iptables_live
from layer45.rules.diversion import Flows, RulePlan, Selector

from .owned_sockets import owned_socket
from .queue_recorder import Recorder
from .rule_plans import NftCounters, diverting, every_backend, plan
from .test_rules_matching import ALICE, UDP, every_family
from .topology import Host, Hosts

pytestmark = pytest.mark.root

PORT = 5004
WANTED = plan(Selector(("udp",), user=(61001,), remote_port=((PORT, PORT),)), Selector(user=(61001,)))


def _only(flows: Flows) -> RulePlan:
    """The first policy gets no flows but those."""
    first, *rest = WANTED.diversions
    return replace(WANTED, diversions=(replace(first, flows=flows), *rest))


@contextlib.contextmanager
def _changed(
    host: Host, diverted: Recorder | NftCounters, wanted: RulePlan
) -> Iterator[Recorder | NftCounters]:
    """Other rules in the place of those that are there; yields what counts from now on."""
    if isinstance(diverted, NftCounters):
        host.run(["nft", "delete", "table", "inet", "layer45_test"])
        yield NftCounters(host, wanted)
        return
    with host.entered():
        iptables_live.install(wanted)
    diverted.counts()
    diverted.seen.clear()
    yield diverted


def _ask(client: socket.socket, server: socket.socket, host: Host, family: int) -> None:
    client.sendto(b"ask", (host.address(family), PORT))
    server.sendto(b"answer", server.recvfrom(100)[1])
    assert client.recv(100) == b"answer"


@contextlib.contextmanager
def _an_old_flow(
    hosts: Hosts, backend: str, family: int
) -> Iterator[tuple[Recorder | NftCounters, socket.socket, socket.socket, socket.socket]]:
    """What is diverted, a server, a client that has asked it, and one that has not."""
    with (
        diverting(hosts.a, backend, WANTED) as diverted,
        owned_socket(hosts.b, family, UDP, port=PORT) as server,
        owned_socket(hosts.a, family, UDP, ALICE) as old,
        owned_socket(hosts.a, family, UDP, ALICE) as new,
    ):
        _ask(old, server, hosts.b, family)
        yield diverted, server, old, new


@every_backend
@every_family
def test_old_flows_keep_the_class_and_new_ones_have_the_next_policy(
    hosts: Hosts, backend: str, family: int
) -> None:
    with _an_old_flow(hosts, backend, family) as (diverted, server, old, new):
        assert diverted.counts() == {"out 0x1": 1, "in 0x1": 1}
        with _changed(hosts.a, diverted, _only("kept")) as now:
            _ask(old, server, hosts.b, family)
            assert now.counts() == {"out 0x1": 1, "in 0x1": 1}
            _ask(new, server, hosts.b, family)
            assert now.counts() == {"out 0x1": 1, "in 0x1": 1, "out 0x2": 1, "in 0x2": 1}


@every_backend
@every_family
def test_what_has_ended_is_dropped_both_ways_and_new_flows_are_not(
    hosts: Hosts, backend: str, family: int
) -> None:
    with _an_old_flow(hosts, backend, family) as (diverted, server, old, new):
        peer = (hosts.a.address(family), old.getsockname()[1])
        with _changed(hosts.a, diverted, _only("ended")) as now:
            with pytest.raises(PermissionError):
                old.sendto(b"ask", (hosts.b.address(family), PORT))
            server.sendto(b"answer", peer)
            _ask(new, server, hosts.b, family)
            assert now.counts() == {"out 0x2": 1, "in 0x2": 1}
            old.settimeout(0.2)
            with pytest.raises(TimeoutError):
                old.recv(100)
