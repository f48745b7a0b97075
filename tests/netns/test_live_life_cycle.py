"""A policy's state changes while its daemon runs: who has the policy then, and that nobody loses a packet.

a: client, daemon ── tag, stream_tag ──▶ wire ──▶ b: daemon, echo server
"""

import contextlib
import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from layer45.control_client import ask
from layer45.control_messages import ChangeState
from layer45.life_cycle import STATES

from .daemons import Daemon, Service, assert_balanced, client_side, running, server_side
from .datagrams import Stream, both_families, connected, echo, exchange
from .steady import SteadyTransfer
from .streams import TAG, connection, counters, customized, engine, noise, streams, tcp, transfer
from .topology import Hosts

pytestmark = pytest.mark.root

PORT, TCP_PORT = 7001, 8100
SENDS = '{ module = "tag", id = "a", direction = "egress" }'
TAKES = '{ module = "tag", id = "b", direction = "ingress" }'
MARKED = Service("marked", PORT, SENDS, server_chain=TAKES)
CLOSED = Service("marked", PORT, SENDS, 'on_failure = "closed"', server_chain=TAKES)
BOTH_WAYS = Service("marked", PORT, '{ module = "tag", id = "a" }', server_chain=TAKES)
WEB = tcp("web", TCP_PORT, TAG)
COMMANDS, LOAD_S, PACE = 100, 10, 2000


@contextlib.contextmanager
def _flow(hosts: Hosts, family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """A client of the echo server, with a port of its own."""
    with connected(hosts.a, family, hosts.b, PORT) as client:
        yield client


def _state(daemon: Daemon, name: str = "marked") -> tuple[str, str]:
    (found,) = (each for each in daemon.ask("status")["policies"] if each["name"] == name)
    return found["state"], found["state_source"]


@contextlib.contextmanager
def _marking(hosts: Hosts, service: Service = MARKED) -> Iterator[tuple[Daemon, Daemon]]:
    """a's client tags its datagrams, b takes the tags off, and what comes back is as b has it."""
    with (
        running(hosts.a, client_side([service])) as a,
        running(hosts.b, server_side([service])) as b,
        echo(hosts.b, PORT),
    ):
        yield a, b


def _tags(client: socket.socket, b: Daemon) -> bool:
    """Whether a datagram of the flow leaves with a tag."""
    before = counters(b, "marked", "tag")["stripped"]
    assert exchange(client, [b"payload"]) == [b"payload"]
    return counters(b, "marked", "tag")["stripped"] == before + 1


def _strips(client: socket.socket) -> bool:
    """Whether b takes the tag of the flow's datagram off."""
    (answer,) = exchange(client, [b"payload"])
    assert answer.startswith(b"payload")
    return answer == b"payload"


def _through_all_states(
    hosts: Hosts, family: int, daemon: Daemon, has_it: Callable[[socket.socket], bool]
) -> None:
    """Of an old flow and a new one in each state, who has the policy."""
    with _flow(hosts, family) as old:
        assert has_it(old)
        for command, old_has, new_has in (
            ("deprecate", True, False),
            ("deactivate", False, False),
            ("activate", True, True),
            ("revoke", False, False),
            ("activate", True, True),
            ("deprecate", True, False),
        ):
            done = daemon.ask(command, "marked")
            assert (done["policy"], done["state"], done["changed"]) == ("marked", STATES[command], True)
            assert done["generation"] == daemon.ask("status")["generation"]
            assert _state(daemon) == (STATES[command], "command")
            with _flow(hosts, family) as new:
                assert [has_it(each) for each in (old, new, old, new)] == [old_has, new_has] * 2, command


@both_families
def test_who_has_the_policy_of_a_client(hosts: Hosts, family: int) -> None:
    with _marking(hosts) as (a, b):
        _through_all_states(hosts, family, a, lambda client: _tags(client, b))
        for daemon in (a, b):
            assert_balanced(daemon.stats())


@both_families
def test_who_has_the_policy_of_a_server(hosts: Hosts, family: int) -> None:
    """Flows from outside, which the client opened."""
    with _marking(hosts) as (a, b):
        _through_all_states(hosts, family, b, _strips)
        for daemon in (a, b):
            assert_balanced(daemon.stats())


def test_flows_of_a_closed_policy_that_is_revoked_are_dropped(hosts: Hosts) -> None:
    """New ones never had it: they are nobody's. On standby, those it had are nobody's too."""
    with _marking(hosts, CLOSED) as (a, b), _flow(hosts) as old:
        assert _tags(old, b)
        a.ask("revoke", "marked")
        for _ in range(3):
            with pytest.raises(PermissionError):
                old.send(b"payload")
        with _flow(hosts) as new:
            assert not _tags(new, b)
        a.ask("activate", "marked")
        assert _tags(old, b)
        a.ask("revoke", "marked")
        a.ask("deactivate", "marked")
        assert not _tags(old, b)
        assert_balanced(a.stats())


def test_a_deprecated_policy_of_the_file_gets_no_flow(hosts: Hosts) -> None:
    deprecated = Service("marked", PORT, SENDS, 'state = "deprecated"', server_chain=TAKES)
    with _marking(hosts) as (a, b), _flow(hosts) as old:
        assert _tags(old, b)
        a.reload(client_side([deprecated]))
        assert _state(a) == ("deprecated", "file")
        with _flow(hosts) as new:
            assert [_tags(old, b), _tags(new, b)] == [True, False]


def test_what_commands_say(hosts: Hosts) -> None:
    with running(hosts.a, client_side([MARKED])) as a:
        say: Any = lambda *words: hosts.a.run(a.command(*words), check=False)  # noqa: E731
        assert say("deprecate", "marked").stdout == "marked: deprecated, generation 2\n"
        again = say("deprecate", "marked")
        assert (again.returncode, again.stdout) == (0, "marked: already deprecated, generation 2\n")
        wrong = say("revoke", "markd")
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert wrong.stderr == 'layer45: no policy "markd", did you mean "marked"?\n'
        assert "deprecated" in say("status").stdout
        reloaded = say("reload")
        assert reloaded.stderr.startswith('layer45: warning: policy "marked" was deprecated by command since')
        assert _state(a) == ("active", "file")


def test_customized_connections_are_kept_or_closed_and_never_pass_as_they_came(hosts: Hosts) -> None:
    content = noise(100_000)
    with streams(hosts, [WEB]) as (a, b), connection(hosts, socket.AF_INET, TCP_PORT) as ends:
        assert transfer(*ends, content) == content
        a.ask("deprecate", "web")
        assert transfer(*ends, content) == content
        assert transfer(*ends[::-1], content) == content
        with connection(hosts, socket.AF_INET, TCP_PORT) as new:
            assert transfer(*new, content) == content
        assert customized(a) == customized(b) == 1
        a.ask("revoke", "web")
        for end in ends:
            with pytest.raises(ConnectionError):
                end.sendall(b"x")
                end.recv(1)
        with connection(hosts, socket.AF_INET, TCP_PORT) as new:
            assert transfer(*new, content) == content
        a.ask("activate", "web")
        with connection(hosts, socket.AF_INET, TCP_PORT) as new:
            assert transfer(*new, content) == content
        assert customized(a) == customized(b) == 2


def test_a_hundred_commands_lose_nothing(hosts: Hosts) -> None:
    """Datagrams of one flow all the time, and of new flows; a stream of the policy beside it."""
    chance, new_flows = random.Random(45), 0
    with (
        streams(hosts, [BOTH_WAYS, WEB], faults=("no_class",)) as (a, b),
        echo(hosts.b, PORT),
        connection(hosts, socket.AF_INET, TCP_PORT) as ends,
        _flow(hosts) as client,
    ):
        beside = SteadyTransfer(*ends)
        begun, changed = time.monotonic(), 0
        with Stream(client, PACE) as load:
            for turn in range(COMMANDS):
                command = chance.choice(tuple(STATES))
                changed += ask(a.socket, ChangeState("marked", command), a.directory)["changed"]
                with _flow(hosts) as new:
                    assert exchange(new, [b"%d" % turn]) == [b"%d" % turn]
                    new_flows += 1
                time.sleep(max(0, begun + turn * LOAD_S / COMMANDS - time.monotonic()))
        assert time.monotonic() - begun < 6 * LOAD_S
        assert beside.stop() > 1_000_000
        load.assert_complete()
        assert len(load.received) == load.sent > PACE * LOAD_S // 2
        assert {len(each) for each in load.received} == {len(b"1234 numbered datagram")}
        assert changed > COMMANDS // 2
        assert a.ask("status")["generation"] == 1 + changed
        tag = counters(b, "marked", "tag")
        assert tag["stripped"] > 0 < tag["unmarked"]
        assert tag["stripped"] + tag["unmarked"] == load.sent + new_flows
        assert customized(a) == customized(b) == 1
        for daemon in (a, b):
            assert_balanced(daemon.stats(), ("no_class",))
            assert not [queue for queue in daemon.ask("status")["queues"] if queue["dropped"]]
        assert engine(b)["no_class"] == 0
