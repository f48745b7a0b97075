"""Without the engine open policies' connections go on, closed ones' stop, and customized ones never pass."""

import socket

import pytest

from layer45.rules import backend
from layer45.rules.diversion import RulePlan, Selector

from .known_map import Connections, change, connected, exchange, installed, key_of_socket
from .rule_plans import plan
from .test_rules_matching import ALICE, every_family
from .topology import Hosts

pytestmark = pytest.mark.root

OF_ALICE = Selector(("tcp",), user=(61001,))


@every_family
@pytest.mark.parametrize("workers", [1, 2])
def test_open_policy_without_a_listener(hosts: Hosts, family: int, workers: int) -> None:
    connections = Connections()
    with (
        installed(hosts.a, plan(OF_ALICE, renumbers={1}, workers=workers), connections),
        connected(hosts.a, hosts.b, family, ALICE) as (one, other),
    ):
        exchange(one, other)
        connections.add(key_of_socket(one), 1)
        exchange(one, other)
        connections.add(key_of_socket(one), 1, customized=True)
        assert_cut(one, other)
        assert_cut(other, one)


@every_family
def test_closed_policy_without_a_listener(hosts: Hosts, family: int) -> None:
    wanted = plan(OF_ALICE, renumbers={1}, bypass=False)
    with (
        installed(hosts.a, wanted, Connections()),
        pytest.raises(TimeoutError),
        connected(hosts.a, hosts.b, family, ALICE),
    ):
        pass


def assert_cut(one: socket.socket, other: socket.socket) -> None:
    one.sendall(b"lost")
    other.settimeout(0.3)
    with pytest.raises(TimeoutError):
        other.recv(9)


@every_family
def test_at_the_end_customized_connections_are_cut_and_others_go_on(hosts: Hosts, family: int) -> None:
    wanted = plan(OF_ALICE, renumbers={1})
    connections = Connections()
    with (
        installed(hosts.a, wanted, connections),
        connected(hosts.a, hosts.b, family, ALICE) as (one, other),
        connected(hosts.a, hosts.b, family, ALICE, port=5005) as (plain, plain_peer),
    ):
        connections.add(key_of_socket(one), 1, customized=True)
        connections.add(key_of_socket(plain), 1)
        with hosts.a.entered():
            backend.install(RulePlan(wanted.owner, wanted.marks, ending=True), "iptables")
        assert_cut(one, other)
        exchange(plain, plain_peer)


@every_family
def test_connections_of_a_policy_that_is_gone_are_closed(hosts: Hosts, family: int) -> None:
    connections = Connections()
    with (
        installed(hosts.a, plan(OF_ALICE, OF_ALICE, renumbers={1, 2}), connections),
        connected(hosts.a, hosts.b, family, ALICE) as (one, other),
        connected(hosts.a, hosts.b, family, ALICE, port=5005) as (kept, _),
    ):
        connections.add(key_of_socket(one), 2, customized=True)
        connections.add(key_of_socket(kept), 1, customized=True)
        change(hosts.a, plan(OF_ALICE, renumbers={1}), connections)
        assert list(connections.all()) == [key_of_socket(kept)]
        with pytest.raises(ConnectionAbortedError):
            one.recv(9)
        with pytest.raises(ConnectionResetError):
            other.sendall(b"are you there?")
            other.recv(9)
