"""Customized connections end with the rules, and nothing else does, not even their port's listener."""

import pytest

from layer45.rules import known
from layer45.rules.diversion import Selector
from layer45.rules.socket_end import end_sockets

from .daemons import eventually
from .known_map import Connections, connected, exchange, installed, key_of, key_of_socket
from .owned_sockets import owned_socket
from .rule_plans import plan
from .test_rules_matching import ALICE, TCP, every_family
from .topology import Hosts

pytestmark = pytest.mark.root

STREAMS = plan(Selector(("tcp",), user=(61001,)), renumbers={1})


@every_family
def test_customized_connections_end_with_the_rules(hosts: Hosts, family: int) -> None:
    connections = Connections()
    with (
        connected(hosts.a, hosts.b, family) as (plain, plain_peer),
        connected(hosts.a, hosts.b, family, ALICE, port=5005) as (one, other),
    ):
        with installed(hosts.a, STREAMS, connections):
            connections.add(key_of_socket(one), 1, customized=True)
            connections.add(key_of_socket(plain), 1)
        with pytest.raises(ConnectionAbortedError):
            one.recv(9)
        other.sendall(b"are you there?")  # there was nobody to tell it
        with pytest.raises(ConnectionResetError):
            other.recv(9)
        exchange(plain, plain_peer)


@every_family
def test_the_listening_socket_of_the_port_stays(hosts: Hosts, family: int) -> None:
    """Asked for a connection that is gone, the kernel offers it."""
    with owned_socket(hosts.a, family, TCP, port=6000) as server, owned_socket(hosts.b, family, TCP) as late:
        server.listen()
        with hosts.a.entered():
            ended = end_sockets([key_of(hosts.a.address(family), 6000, hosts.b.address(family), 9)])
        assert (ended.closed, ended.problem) == (0, "")
        late.connect((hosts.a.address(family), 6000))


@every_family
def test_orphans_and_those_in_time_wait_end_too(hosts: Hosts, family: int) -> None:
    def states() -> str:
        return str(hosts.a.run(["ss", "-Htan"]).stdout)

    with connected(hosts.a, hosts.b, family) as (one, other):
        key = key_of_socket(one)
        one.close()
        eventually(lambda: "FIN-WAIT-2" in states(), 5)
        with hosts.a.entered():
            assert end_sockets([key]).closed == 1
        assert "FIN-WAIT-2" not in states()
    with connected(hosts.a, hosts.b, family, port=5005) as (one, other):
        key = key_of_socket(one)
        one.close()
        other.close()
        eventually(lambda: "TIME-WAIT" in states(), 5)
        with hosts.a.entered():
            assert end_sockets([key]).closed == 1
        assert "TIME-WAIT" not in states()


def test_nothing_to_remove_is_no_error(hosts: Hosts) -> None:
    with hosts.a.entered():
        assert known.remove("test").closed == 0
