"""The rules of a daemon with a renumbering policy, from before its queues to after its end or its death."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from layer45.config import Settings
from layer45.rule_switch import RuleSwitch
from layer45.rules import backend, pins
from layer45.rules.diversion import RulePlan, Selector

from .known_map import Connections, connected, exchange, key_of_socket, tcp_of, without_trace
from .queue_recorder import recording
from .rule_plans import FIRST_QUEUE, plan
from .test_rules_life import LITTLE, snapshot
from .test_rules_matching import ALICE, V4
from .topology import Hosts

pytestmark = pytest.mark.root

STREAMS = plan(Selector(("tcp",), user=(61001,)), renumbers={1})


def switch(name: str = "iptables") -> RuleSwitch:
    return RuleSwitch(replace(Settings(), backend=name))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def customized(descriptor: int, key: bytes) -> None:
    engine = Connections()
    engine.descriptor = descriptor
    engine.add(key, 1, customized=True)


@contextlib.contextmanager
def started(hosts: Hosts, wanted: RulePlan = STREAMS) -> Iterator[tuple[RuleSwitch, int]]:
    """A daemon's rules, and its map."""
    with hosts.a.entered():
        rules = switch()
        descriptor = rules.prepare(wanted)
        rules.install(wanted)
    try:
        yield rules, descriptor
    finally:
        with hosts.a.entered():
            rules.remove(wanted.owner)


def test_whole_life_leaves_no_trace(hosts: Hosts) -> None:
    before, descriptors = snapshot(hosts.a), open_descriptors()
    with without_trace(hosts.a), started(hosts) as (rules, descriptor):
        assert descriptor >= 0
        with hosts.a.entered():
            assert rules.prepare(LITTLE) == descriptor  # a reload; the map stays
            rules.install(LITTLE)
            assert rules.prepare(STREAMS) == descriptor
            rules.install(STREAMS)
            rules.divert_nothing(STREAMS)
            rules.remove(STREAMS.owner)
            rules.release(STREAMS.owner)
    assert snapshot(hosts.a) == before
    assert open_descriptors() == descriptors


def test_customized_connections_are_closed_while_the_engine_can_tell_their_peers(hosts: Hosts) -> None:
    with (
        recording(hosts.a, range(FIRST_QUEUE, FIRST_QUEUE + 1)) as recorder,
        started(hosts) as (rules, descriptor),
        connected(hosts.a, hosts.b, V4, ALICE) as (one, other),
        connected(hosts.a, hosts.b, V4, ALICE, port=5005) as (plain, plain_peer),
    ):
        customized(descriptor, key_of_socket(one))
        with hosts.a.entered():
            rules.divert_nothing(STREAMS)
        with pytest.raises(ConnectionAbortedError):
            one.recv(9)
        with pytest.raises(ConnectionResetError):
            other.recv(9)
        assert tcp_of(recorder.seen[-1].packet)[13] & 4
        exchange(plain, plain_peer)


def test_a_killed_daemons_customized_connections_do_not_outlive_its_rules(hosts: Hosts) -> None:
    with (
        without_trace(hosts.a),
        recording(hosts.a, range(FIRST_QUEUE, FIRST_QUEUE + 1)),
        started(hosts) as (_, descriptor),
        connected(hosts.a, hosts.b, V4, ALICE) as (one, _),
    ):
        customized(descriptor, key_of_socket(one))
        with hosts.a.entered():
            successor = switch()
            assert successor.present(STREAMS.owner)
            assert successor.prepare(STREAMS) != descriptor
            with pytest.raises(ConnectionAbortedError):
                one.recv(9)  # the old rules are still there: nothing has left
            successor.install(STREAMS)
            with connected(hosts.a, hosts.b, V4, ALICE, port=5005) as (new, new_peer):
                exchange(new, new_peer)
            successor.remove(STREAMS.owner)


def test_what_was_prepared_for_nothing_goes(hosts: Hosts) -> None:
    with without_trace(hosts.a), hosts.a.entered():
        rules = switch()
        assert rules.prepare(STREAMS) >= 0
        assert pins.existing(STREAMS.owner)
        rules.release(STREAMS.owner)
        assert pins.existing(STREAMS.owner) == []


def test_auto_becomes_iptables_with_the_first_plan_that_needs_it_and_stays(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "nft_queue_problem", lambda: None)
    before = snapshot(hosts.a)
    with hosts.a.entered():
        rules = switch("auto")
        assert rules.name == "nft"
        rules.prepare(STREAMS)
        rules.install(STREAMS)
        assert rules.name == "iptables"
        rules.install(LITTLE)
        assert rules.name == "iptables"
        rules.divert_nothing(LITTLE)
        rules.remove(STREAMS.owner)
    assert snapshot(hosts.a) == before
