"""What counts as a failure of a chain, and what a worker does with packets of a disabled one."""

from pathlib import Path
from typing import Any

import pytest

from layer45.fastpath.bridge import last_fault, python_instance
from layer45.fastpath.chain import Chain, ClassTable, InstanceSpec, Refused
from layer45.fastpath.worker import Worker

from ..modules.wire import datagram, segment
from .compiled import compiled
from .scripted import Services, scripted

PASS, REWRITTEN, DROP, HOLD, ERROR = 1, 2, 3, 4, 5
EGRESS, INGRESS = 0, 1
TRUNCATED = 32


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(Path(__file__).parent / "driver", tmp_path_factory.mktemp("driver"))


class Running:
    """A worker with one chain."""

    def __init__(self, driver: Any, *instances: InstanceSpec, **more: Any) -> None:
        self.worker = Worker(max_held=8)
        self.chain = Chain(1, "test", instances, transports=("udp", "tcp"), **more)
        self.worker.publish(ClassTable([self.chain]))
        self.driver = driver.Driver(self.worker)
        self.driver.rest()

    def send(self, packet: bytes = datagram(b"x"), direction: int = EGRESS, **more: Any) -> int:
        return int(self.driver.process(packet, direction, **more)[0])

    def failed(self) -> tuple[int, int]:
        counters = self.chain.counters()
        return counters["egress_failed"], counters["ingress_failed"]

    def end(self) -> dict[str, int]:
        self.driver.close()
        counters = dict(self.worker.counters())
        assert set(self.worker.live.values()) == {0} and counters["held"] == 0
        assert counters["received"] == sum(counters[name] for name in ("passed", "rewritten", "dropped"))
        return counters


def answer(packet: bytes) -> bytes:
    """An IPv4 datagram as its receiver sends it back."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[22:24] + packet[20:22] + packet[24:]


def answering(*answers: int) -> InstanceSpec:
    """One answer after the other."""
    left = iter(answers)
    return scripted(lambda host, packet: next(left))


def test_each_kind_of_failure_is_counted_where_it_happens(driver: Any) -> None:
    running = Running(driver, answering(*[PASS] * 7), answering(ERROR, 0, 77, HOLD, DROP, PASS, REWRITTEN))
    for _ in range(7):
        running.send()
    assert running.chain.faults() == [
        {"errors": 0, "unset": 0, "flows_refused": 0},
        {"errors": 1, "unset": 3, "flows_refused": 0},
    ]
    assert running.failed() == (4, 0)
    assert running.end()["unset_verdicts"] == 3


def test_what_is_sent_in_flows_begun_here_is_counted_apart(driver: Any) -> None:
    """Not the answer to what came, though it is sent, too."""
    running = Running(driver, answering(ERROR, ERROR, PASS, ERROR, ERROR))
    for direction in (EGRESS, INGRESS, EGRESS):
        running.send(direction=direction)
    came = datagram(b"x", port=7000)
    running.send(came, INGRESS)
    running.send(answer(came), EGRESS)
    assert running.failed() == (2, 2)
    counters = running.chain.counters()
    assert (counters["begun_sent"], counters["begun_failed"]) == (2, 1)
    running.end()


def test_a_packet_too_long_for_the_chain_is_nobodys_failure(driver: Any) -> None:
    running = Running(driver, answering(*[ERROR] * 3), growth_bytes=100, whole_payload=False)
    running.send(datagram(bytes(65_431 - 28 + 1)))
    running.send(datagram(bytes(500))[:100], flags=TRUNCATED)
    assert running.failed() == (0, 0)
    running.send(datagram(bytes(65_431 - 28)))
    assert running.failed() == (1, 0)
    assert running.end()["module_errors"] == 3


def test_a_held_packet_that_fails_further_on_counts_too(driver: Any) -> None:
    def hold(host: Services, packet: Any) -> int:
        host.resume(host.hold(packet), host.now_ns + 1_000_000)
        return HOLD

    running = Running(driver, scripted(hold), answering(0))
    assert running.send() == HOLD
    running.driver.advance(2_000_000)
    assert running.failed() == (1, 0)
    assert running.chain.faults()[1]["unset"] == 1
    running.end()


@pytest.mark.parametrize(
    ("closed", "verdict", "counter"), [(False, PASS, "disabled_passed"), (True, DROP, "disabled_dropped")]
)
def test_packets_go_round_a_disabled_chain(driver: Any, closed: bool, verdict: int, counter: str) -> None:
    """Not one call, and all is counted; and through it again when it is put back."""
    calls = []

    def look(host: Services, packet: Any) -> int:
        calls.append(packet)
        return DROP

    running = Running(driver, scripted(look), fail_closed=closed)
    assert running.send() == DROP and len(calls) == 1
    running.chain.disabled = True
    for direction in (EGRESS, INGRESS):
        for packet in (datagram(b"x"), datagram(b"y"), segment(b"payload", 1000)):
            assert running.send(packet, direction) == verdict
    assert len(calls) == 1 and running.chain.disabled
    counters = running.chain.counters()
    assert counters["bypassed"] == 6
    assert (counters["egress_packets"], counters["ingress_packets"]) == (4, 3)
    assert running.worker.counters()[counter] == 6
    running.chain.disabled = False
    assert running.send() == DROP and len(calls) == 2
    running.end()


def test_what_a_disabled_chain_holds_is_let_go_with_its_flow(driver: Any) -> None:
    running = Running(driver, scripted(lambda host, packet: HOLD if host.hold(packet) else ERROR))
    assert running.send() == HOLD
    running.chain.disabled = True
    assert running.send() == PASS
    assert [event[0] for event in running.driver.events] == ["held"]
    assert running.worker.live["flows"] == 0
    assert running.end()["flows_closed"] == 1


def test_a_flow_that_is_not_opened_is_a_failure(driver: Any) -> None:
    running = Running(driver, answering(), scripted(lambda host, packet: PASS, opens=False))
    for _ in range(3):
        assert running.send() == PASS
    assert running.failed() == (3, 0)
    assert running.chain.counters()["egress_packets"] == 3
    assert [each["flows_refused"] for each in running.chain.faults()] == [0, 3]
    running.end()


class Raising:
    """A module that raises what the test says, where it says."""

    def __init__(self, parameters: dict[str, Any], count: Any) -> None:
        if "at_once" in parameters:
            raise parameters["at_once"]
        self.error = parameters["error"]

    def egress(self, packet: Any) -> None:
        raise self.error


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("as\nasked"), "RuntimeError: as asked"),
        (SystemExit(3), "SystemExit: 3"),
        (MemoryError(), "MemoryError:"),
        (Unspeakable(), "Unspeakable"),
    ],
)
def test_whatever_a_python_module_raises_is_a_failure(driver: Any, error: BaseException, said: str) -> None:
    class Each(Raising):
        pass

    spec = python_instance("raising", Each, {"error": error}, ())
    running = Running(driver, spec)
    assert running.send() == PASS
    assert running.failed() == (1, 0) and running.chain.faults()[0]["errors"] == 1
    assert [last_fault(owner) for owner in running.chain.instance_owners] == [said]
    running.end()


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit("no"), MemoryError("no"), GeneratorExit("no")]
)
def test_whatever_a_python_module_raises_at_once_refuses_it(error: BaseException) -> None:
    with pytest.raises(
        ValueError, match=rf"module raising: {type(error).__name__}: no \(.*test_worker_failures.py:\d+\)"
    ):
        python_instance("raising", Raising, {"at_once": error}, ())


def test_the_instance_that_refuses_is_named_by_its_place() -> None:
    with pytest.raises(Refused) as caught:
        Chain(1, "test", [answering(), InstanceSpec("odd", object())])
    assert caught.value.place == 1
