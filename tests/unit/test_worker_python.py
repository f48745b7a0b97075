"""Modules in Python that go too far: what they keep, and what they get wrong halfway."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from layer45.fastpath.bridge import Flow, Packet, python_instance
from layer45.fastpath.chain import Chain, ClassTable
from layer45.fastpath.worker import Worker

from ..modules.wire import (
    datagram,
    field_of,
    is_sound,
    options_of,
    payload_of,
    segment,
    with_field,
)
from .compiled import compiled
from .scripted import Services, scripted

PASS, REWRITTEN, HOLD = 1, 2, 4
TRUNCATED = 32


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(Path(__file__).parent / "driver", tmp_path_factory.mktemp("driver"))


class Doing:
    """A module that does what the test says to each packet."""

    def __init__(self, parameters: dict[str, Any], count: Any) -> None:
        self.do = parameters["do"]

    def egress(self, packet: Any) -> None:
        self.do(packet)

    ingress = egress


def running(driver: Any, do: Any, *more: Any, **keys: Any) -> Any:
    worker = Worker(max_held=4)
    chain = Chain(1, "test", [python_instance("doing", Doing, {"do": do}, ()), *more], **keys)
    worker.publish(ClassTable([chain]))
    driven = driver.Driver(worker)
    driven.rest()
    return driven


def test_an_instance_that_is_done_with_a_flow_gets_no_more_of_it(driver: Any) -> None:
    """Others of the chain do, and so does it of other flows."""
    seen: list[str] = []
    said: list[bool] = []

    def once(packet: Any) -> None:
        seen.append("once")
        said.append(packet.flow.done())

    def always(packet: Any) -> None:
        seen.append("always")

    other = python_instance("always", Doing, {"do": always}, ())
    driven = running(driver, once, other, lets_go=True)
    for _ in range(3):
        assert driven.process(datagram(b"x"))[0] == PASS
    assert (seen, said) == (["once", "always", "always", "always"], [True])
    assert driven.process(datagram(b"x", port=999))[0] == PASS
    assert seen[4:] == ["once", "always"]
    driven.close()


def test_a_chain_that_lets_go_of_no_flow_is_never_done(driver: Any) -> None:
    said: list[bool] = []
    driven = running(driver, lambda packet: said.append(packet.flow.done()))
    for _ in range(2):
        assert driven.process(datagram(b"x"))[0] == PASS
    assert said == [False, False]
    driven.close()


def test_what_a_module_keeps_is_dead_after_the_call(driver: Any) -> None:
    kept: list[Any] = []
    driven = running(driver, lambda packet: kept.extend((packet, packet.flow)))
    assert driven.process(datagram(b"x"))[0] == PASS
    packet, flow = kept
    for use in (
        lambda: flow.state, lambda: flow.local, lambda: flow.remote, lambda: packet.payload,
        lambda: packet.emit(), lambda: packet.drop(), lambda: packet.time_ns, lambda: Packet().payload,
        lambda: Flow().state, lambda: packet.flow.state,
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="good only during the call"):
            use()
    driven.close()


@pytest.mark.parametrize("after_ms", [-1, float("nan"), float("inf"), 1e300, "soon", None])
def test_a_copy_that_cannot_be_sent_is_not_kept(driver: Any, after_ms: Any) -> None:
    driven = running(driver, lambda packet: packet.emit(after_ms=after_ms))
    for _ in range(10):
        assert driven.process(datagram(b"x"))[0] == PASS
    assert driven.worker.live["owned"] == 0
    assert driven.worker.counters()["module_errors"] == 10
    driven.close()


def test_payload_that_is_too_long_changes_nothing(driver: Any) -> None:
    """A module may catch the error and let the packet go as it is."""

    def swell(packet: Any) -> None:
        packet.payload = b"changed" + packet.payload[7:]
        with pytest.raises(ValueError, match="more than an IP packet takes"):
            packet.payload = bytes(65520)

    driven = running(driver, swell)
    verdict, after = driven.process(datagram(b"x" * 64000))
    assert verdict == REWRITTEN
    assert is_sound(after)
    assert payload_of(after) == b"changed" + b"x" * 63993
    driven.close()


def test_a_flows_state_ends_with_it(driver: Any) -> None:
    """Also where a packet comes along after its instance was closed."""
    states, held = [], []

    class Value:
        """Something whose end can be seen."""

    def remember(packet: Any) -> None:
        packet.flow.state["value"] = Value()
        states.append(weakref.ref(packet.flow.state["value"]))

    def hold(host: Services, packet: Any) -> int:
        if len(held) == 0:
            held.append(host.hold(packet))
            return HOLD
        return PASS

    late = scripted(hold, flow_close=lambda host: host.resume(held[0]))
    driven = running(driver, remember, late)
    assert driven.process(datagram(b"x"), 1)[0] == HOLD
    assert driven.process(datagram(b"x"), 1)[0] == PASS
    driven.close()
    gc.collect()
    assert states
    assert [state() for state in states] == [None] * len(states)


def test_tcp_options_are_read_and_written(driver: Any) -> None:
    def more(packet: Any) -> None:
        assert (packet.tcp_flags, packet.agreed) == (2, False)
        packet.tcp_options = b"\1\1\1\1" + packet.tcp_options

    driven = running(driver, more, transports=("udp", "tcp"))
    for options in (b"", b"\2\4\5\xb4", bytes(36)):
        verdict, after = driven.process(segment(b"payload", 1000, 4, 2, options))
        assert verdict == REWRITTEN and is_sound(after)
        assert (options_of(after), payload_of(after)) == (b"\1\1\1\1" + options, b"payload")
    driven.close()


def test_tcp_options_that_cannot_be_are_refused(driver: Any) -> None:
    caught: list[str] = []

    def wrong(packet: Any) -> None:
        for options in (b"123", bytes(44)):
            with pytest.raises(ValueError) as error:
                packet.tcp_options = options
            caught.append(str(error.value))

    driven = running(driver, wrong, transports=("udp", "tcp"))
    assert driven.process(segment(b"payload", 1000))[0] == PASS
    assert len(caught) == 2 and all("a multiple of 4, at most 40" in each for each in caught)
    assert driven.process(datagram(b"x"))[0] == PASS
    assert len(caught) == 4 and "only a TCP packet" in caught[-1]
    driven.close()


def test_the_code_point_is_read_and_written(driver: Any) -> None:
    def raise_it(packet: Any) -> None:
        packet.dscp += 1

    driven = running(driver, raise_it)
    for version in (4, 6):
        verdict, after = driven.process(with_field(datagram(b"payload", version), 46 << 2 | 1))
        assert verdict == REWRITTEN and is_sound(after)
        assert (field_of(after), payload_of(after)) == (47 << 2 | 1, b"payload")
    driven.close()


def test_code_points_that_cannot_be_are_refused(driver: Any) -> None:
    caught: list[str] = []

    def wrong(packet: Any) -> None:
        for dscp in (-1, 64):
            with pytest.raises(ValueError) as error:
                packet.dscp = dscp
            caught.append(str(error.value))
        with pytest.raises(ValueError, match="captured in part"):
            packet.dscp = 9

    driven = running(driver, wrong, whole_payload=False)
    sent = datagram(b"payload" * 9)[:40]
    assert driven.process(sent, flags=TRUNCATED) == (PASS, sent)
    assert caught == ["-1 is no code point; expected 0 to 63", "64 is no code point; expected 0 to 63"]
    driven.close()
