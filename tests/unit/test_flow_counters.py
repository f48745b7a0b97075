"""Counters that are kept for each flow too: who may ask for them, and how they are read under traffic."""

import threading
from pathlib import Path
from typing import Any

import pytest

from layer45.fastpath.chain import Chain, ClassTable, InstanceSpec
from layer45.fastpath.worker import Worker

from ..modules.wire import datagram
from .compiled import compiled
from .scripted import scripted

PORTS, ROOM = 24, 8  # of a churn: more flows than there is room for
PACKETS = 3_000_000


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(Path(__file__).parent / "driver", tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> InstanceSpec:
    code = compiled(Path(__file__).parent / "tally", tmp_path_factory.mktemp("tally"))
    return InstanceSpec("tally", code.ops, counters=("seen", "seen_bytes", "strange"))


def silent(**keys: int) -> InstanceSpec:
    return scripted(lambda *_: 1, **keys)


def chain_of(*instances: InstanceSpec, **keys: Any) -> Chain:
    return Chain(1, "test", instances, transports=("udp", "tcp"), **keys)


class Running:
    """A worker with one chain."""

    def __init__(self, driver: Any, chain: Chain) -> None:
        self.worker = Worker(max_flows=ROOM)
        self.driver = driver.Driver(self.worker)
        self.take_up(chain)

    def take_up(self, chain: Chain) -> None:
        self.worker.publish(ClassTable([chain]))
        self.driver.rest()

    def send(self, payload: bytes, port: int = 5000) -> None:
        self.driver.process(datagram(payload, port=port))

    @property
    def instances(self) -> list[Any]:
        """Of each flow, by its remote port."""
        flows = sorted(self.worker.flows(), key=lambda flow: flow["remote"][1])
        return [flow["instances"] for flow in flows]


def tallied(seen: int, seen_bytes: int) -> dict[str, Any]:
    return {"module": "tally", "counters": {"seen": seen, "seen_bytes": seen_bytes}}


def test_each_flow_has_its_own_counts_and_the_chain_the_sum(driver: Any, tally: InstanceSpec) -> None:
    chain = chain_of(tally)
    running = Running(driver, chain)
    for port, payload in ((1, b"ab"), (2, b"abcd"), (1, b"?")):
        running.send(payload, port)
    assert running.instances == [[tallied(2, 3)], [tallied(1, 4)]]
    assert chain.counters()["instances"][0]["counters"] == {"seen": 3, "seen_bytes": 7, "strange": 1}
    running.driver.close()
    assert running.instances == []


def test_only_instances_that_count_by_flow_are_named(driver: Any, tally: InstanceSpec) -> None:
    running = Running(driver, chain_of(silent(flow_state_bytes=24), tally, silent(), tally))
    running.send(b"ab")
    assert running.instances == [[tallied(1, 2), tallied(1, 2)]]
    bare = Running(driver, chain_of(silent()))
    bare.send(b"ab")
    assert bare.instances == [[]]


def test_a_flow_of_a_replaced_chain_is_read_by_that_chain(driver: Any, tally: InstanceSpec) -> None:
    """Its state lies where the old chain has put it, until its next packet brings it the new one."""
    running = Running(driver, chain_of(silent(flow_state_bytes=64), tally, sticky=True))
    running.send(b"ab", port=1)
    running.take_up(chain_of(tally, silent()))
    running.worker.reclaim()
    running.send(b"abcd", port=2)
    assert running.instances == [[tallied(1, 2)], [tallied(1, 4)]]
    running.send(b"ab", port=1)
    assert running.instances[0] == [tallied(2, 4)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"flow_counters": 1},
         "module scripted: its ops table has 1 flow_counters, which take 8 bytes of the 0 of its flow state"),
        ({"flow_counters": 1 << 29 | 1, "flow_state_bytes": 8},
         "module scripted: its ops table has 536870913 flow_counters, which take 4294967304 bytes of the 8"),
        ({"flow_counters": 1, "flow_state_bytes": 8},
         "policy test: module scripted: its ops table has 1 flow_counters, but the module has 0 counters"),
    ],
)  # fmt: skip
def test_a_table_that_wants_more_than_there_is_is_refused(keys: dict[str, int], expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        chain_of(silent(**keys))
    assert str(caught.value).startswith(expected)


def test_flows_are_read_while_they_open_and_close_and_change_chains(driver: Any, tally: InstanceSpec) -> None:
    """Blocks of state are freed and made anew all the time, and hold other things at the same place."""
    idle = silent(flow_state_bytes=1000)
    idle.directions = frozenset()  # only its state is there: no call, no interpreter
    running = Running(driver, chain_of(tally))
    packet, read = datagram(b"12345678"), 0
    churn = threading.Thread(target=running.driver.churn, args=(packet, PORTS, PACKETS))
    churn.start()
    while churn.is_alive():
        running.worker.publish(ClassTable([chain_of(*[idle] * (read % 3), tally, tally)]))
        for _ in range(20):
            for instance in (each for instances in running.instances for each in instances):
                counters = instance["counters"]
                assert 0 <= counters["seen"] <= PACKETS
                assert abs(counters["seen_bytes"] - 8 * counters["seen"]) <= 8 * PORTS
                read += 1
        running.worker.reclaim()
    churn.join()
    assert read > 1000
    running.driver.rest()
    running.driver.close()
    assert running.worker.reclaim()
    assert set(running.worker.live.values()) == {0}
