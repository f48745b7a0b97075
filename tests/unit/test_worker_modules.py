"""What a worker does with modules that take packets, and with those that get it wrong."""

from pathlib import Path
from typing import Any

import pytest

from layer45.fastpath.bridge import python_instance
from layer45.fastpath.chain import Chain, ClassTable, InstanceSpec
from layer45.fastpath.worker import Worker

from ..modules.wire import datagram, is_sound, payload_of, segment
from .compiled import compiled
from .scripted import Services, scripted

PASS, REWRITTEN, DROP, HOLD = 1, 2, 3, 4
EGRESS, INGRESS = 0, 1
EDITED, PARTIAL = 1, 8
MS = 1_000_000


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(Path(__file__).parent / "driver", tmp_path_factory.mktemp("driver"))


class Running:
    """A worker with one chain."""

    def __init__(self, driver: Any, *instances: InstanceSpec, **more: Any) -> None:
        self.worker = Worker(max_held=8, udp_idle_s=5)
        self.worker.publish(ClassTable([Chain(1, "test", instances, transports=("udp", "tcp"), **more)]))
        self.driver = driver.Driver(self.worker)
        self.driver.rest()

    def send(self, packet: bytes = datagram(b"original"), direction: int = EGRESS, **more: Any) -> int:
        self.now: tuple[int, bytes] = self.driver.process(packet, direction, **more)
        return self.now[0]

    @property
    def events(self) -> list[tuple[str, int, int, bytes]]:
        return list(self.driver.events)

    def close(self) -> dict[str, int]:
        """Ends the flows; the counters, balanced."""
        self.driver.close()
        counters = dict(self.worker.counters())
        assert set(self.worker.live.values()) == {0}
        assert counters["held"] == 0
        assert counters["received"] == sum(counters[name] for name in ("passed", "rewritten", "dropped"))
        assert counters["clones"] == counters["clones_ended"]
        return counters


def passing(_: Services, __: Any) -> int:
    return PASS


def test_a_packet_is_held_once(driver: Any) -> None:
    """A second hold of what is held already would take the queue's slot for a packet of the pool."""
    answers = []

    def hold_twice(host: Services, packet: Any) -> int:
        first, second = host.hold(packet), host.hold(packet)
        answers.append((bool(first), bool(second)))
        host.resume(first, host.now_ns + MS)
        return HOLD

    running = Running(driver, scripted(hold_twice))
    assert running.send() == HOLD
    running.driver.advance(2 * MS)
    assert answers == [(True, False)]
    assert [event[:3] for event in running.events] == [("held", 0, PASS)]
    assert running.close()["passed"] == 1


@pytest.mark.parametrize("answer", [0, PASS, REWRITTEN, DROP, 5, 77])
def test_nothing_sees_a_packet_that_was_taken_whatever_its_module_says(driver: Any, answer: int) -> None:
    kept, seen = [], []

    def hold_and_lie(host: Services, packet: Any) -> int:
        kept.append(host.hold(packet))
        return answer

    def witness(host: Services, packet: Any) -> int:
        seen.append(bool(host.hold(packet)))
        return HOLD

    running = Running(driver, scripted(hold_and_lie), scripted(witness))
    assert running.send() == HOLD
    assert seen == []
    assert running.events == []
    running.close()
    assert [event[:3] for event in running.events] == [("held", 0, PASS)]


def test_nothing_sees_a_resumed_packet_after_it_is_gone(driver: Any) -> None:
    """As above, with a packet of the pool that its second taker ends inside the call."""
    seen = []

    def first(host: Services, packet: Any) -> int:
        host.resume(host.hold(packet), host.now_ns + MS)
        return HOLD

    def second(host: Services, packet: Any) -> int:
        host.discard(host.hold(packet))
        return PASS

    def third(host: Services, packet: Any) -> int:
        seen.append(bool(host.hold(packet)))
        return HOLD

    running = Running(driver, scripted(first), scripted(second), scripted(third))
    assert running.send() == HOLD
    running.driver.advance(2 * MS)
    assert seen == []
    assert [event[:3] for event in running.events] == [("held", 0, DROP)]
    assert running.close()["dropped"] == 1


def test_a_timer_armed_for_the_past_does_not_stop_the_world(driver: Any) -> None:
    ticks = []

    def arm(host: Services, _: Any) -> int:
        host.arm(0)
        return PASS

    def tick(host: Services) -> None:
        ticks.append(host.now_ns)
        if len(ticks) < 100_000:
            host.arm(host.now_ns)

    running = Running(driver, scripted(arm, tick))
    running.driver.advance(5 * MS)
    running.send()
    running.driver.advance(6 * MS)
    assert 1 <= len(ticks) <= 10
    running.close()


def test_a_closed_instance_is_not_called(driver: Any) -> None:
    """On ingress the last instance runs first, and it lets go when the first one is closed already."""
    calls, held = [], []

    def first(_: Services, __: Any) -> int:
        calls.append("first")
        return PASS

    def last(host: Services, packet: Any) -> int:
        held.append(host.hold(packet))
        return HOLD

    running = Running(
        driver,
        scripted(first, flow_close=lambda _: calls.append("closed")),
        scripted(passing),
        scripted(last, flow_close=lambda host: host.resume(held.pop())),
    )
    assert running.send(direction=INGRESS) == HOLD
    counters = running.close()
    assert calls == ["closed"]
    assert counters["failed_open"] == counters["passed"] == 1


@pytest.mark.parametrize(("closed", "verdict"), [(False, PASS), (True, DROP)])
def test_a_forgotten_packet_gets_what_its_policy_says_of_failures(
    driver: Any, closed: bool, verdict: int
) -> None:
    """What a closed policy's chain did not customize must not leave the host, in a flood of flows either."""

    def delay(host: Services, packet: Any) -> int:
        host.resume(host.hold(packet), host.now_ns + MS)
        return HOLD

    running = Running(driver, scripted(delay), fail_closed=closed)
    assert running.send() == HOLD
    running.close()
    assert [event[:3] for event in running.events] == [("held", 0, verdict)]


def test_a_copy_of_a_packet_whose_sum_the_device_should_make_has_one(driver: Any) -> None:
    def copy(host: Services, packet: Any) -> int:
        host.resume(host.clone(packet))
        return PASS

    whole = segment(b"x" * 99, 1)
    pseudo = bytes([10, 77, 0, 1, 10, 77, 0, 2, 0, 6]) + (20 + 99).to_bytes(2)
    total = sum(int.from_bytes(pseudo[at : at + 2]) for at in range(0, 12, 2))
    total = (total & 0xFFFF) + (total >> 16)
    partial = whole[:36] + total.to_bytes(2) + whole[38:]
    running = Running(driver, scripted(copy))
    assert running.send(partial, flags=PARTIAL) == PASS
    ((kind, _, _, sent),) = running.events
    assert kind == "clone"
    assert is_sound(sent)
    assert payload_of(sent) == payload_of(whole)
    running.close()


class Growing:
    """Adds bytes to every packet."""

    count = 0

    def __init__(self, parameters: dict[str, Any], counted: Any) -> None:
        self.count = parameters["count"]

    def egress(self, packet: Any) -> None:
        packet.payload += bytes(self.count)


def test_growth_beyond_the_mtu_itself_is_no_huge_mtu(driver: Any) -> None:
    running = Running(driver, python_instance("growing", Growing, {"count": 2000}, ()), signal_mtu=True)
    packet = bytearray(datagram(b"x"))
    packet[6] |= 0x40
    assert running.send(bytes(packet), mtu=1500) == DROP
    assert [event[:3] for event in running.events] == [("too_big", 0, 0)]
    running.close()


def test_no_sender_is_told_of_less_than_ipv6_guarantees(driver: Any) -> None:
    """It would go on sending 1280 bytes, as RFC 8200 allows it, and none would ever arrive."""
    running = Running(driver, python_instance("growing", Growing, {"count": 40}, ()), signal_mtu=True)
    assert running.send(datagram(bytes(1280 - 48), 6), mtu=1300) == REWRITTEN
    assert running.send(datagram(bytes(1281 - 48), 6), mtu=1300) == DROP
    assert [event[0] for event in running.events] == ["too_big"]
    running.close()


def test_a_flow_counts_for_its_chain_until_it_is_closed(driver: Any) -> None:
    """A chain that was replaced lives as long as a flow of its own."""
    running = Running(driver, scripted(lambda host, packet: HOLD if host.hold(packet) else PASS), sticky=True)
    assert running.send() == HOLD
    running.worker.publish(ClassTable([]))
    running.driver.rest()
    assert not running.worker.reclaim()
    assert running.send() == PASS
    running.driver.advance(10_000 * MS)
    assert running.worker.reclaim()
    running.close()
