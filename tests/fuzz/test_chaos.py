"""The engine under modules that do anything at any time: see chaos/chaos.pyx.

Chains of several such instances, far too few flows and packets for them, reloads all the time; LAYER45_FUZZ_S
says for how many seconds (20), LAYER45_FUZZ_SEED which randomness. tests/fuzz/sanitize.sh tests/fuzz
"""

import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from layer45.fastpath.chain import Chain, ClassTable, InstanceSpec
from layer45.fastpath.worker import Worker

from ..modules.wire import datagram, is_sound, segment
from ..unit.compiled import compiled

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("LAYER45_FUZZ_S", "20"))
SEED = int(os.environ.get("LAYER45_FUZZ_SEED", "0")) or int.from_bytes(os.urandom(4))
PASS, REWRITTEN, DROP, HOLD = 1, 2, 3, 4
PARTIAL, GSO, TRUNCATED = 8, 16, 32
CLASSES = (1, 2, 3)


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(ROOT / "tests/fuzz/chaos", tmp_path_factory.mktemp("chaos"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(ROOT / "tests/unit/driver", tmp_path_factory.mktemp("driver"))


class Run:
    """One worker's life: packets in at random, and what is known to be out."""

    def __init__(self, chaos: Any, driver: Any, mischief: bool, seed: int) -> None:
        self.random = random.Random(seed)
        self.chaos, self.mischief = chaos, mischief
        self.max_held = self.random.choice((0, 1, 3, 40))
        self.worker = Worker(
            max_flows=self.random.choice((1, 2, 5)), max_held=self.max_held, seed=seed,
            udp_idle_s=self.random.choice((0.005, 0.1, 5)), tcp_idle_s=0.05,
        )  # fmt: skip
        self.driver = driver.Driver(self.worker)
        self.now_ns = self.random.choice((0, 10**9, (1 << 53) - 10**8, 3 * (1 << 53) - 10**7))
        self.waiting: set[int] = set()
        self.verdicts: Counter[int] = Counter()
        self.queued = 0
        self.reload()

    def reload(self) -> None:
        """Other chains, or none, for some classes; the old ones go once no flow has them."""
        ids = [each for each in CLASSES if self.random.random() < 0.9]
        self.worker.publish(ClassTable([self.chain(each) for each in ids]))
        self.driver.rest()
        self.worker.reclaim()

    def chain(self, class_id: int) -> Chain:
        entry = InstanceSpec("chaos", self.chaos.ops, [("mischief", int(self.mischief))], ["calls"])
        closed, sticky = self.random.random() < 0.5, self.random.random() < 0.2
        return Chain(
            class_id, "chaos", [entry] * self.random.randint(0, 5), transports=("udp", "tcp"),
            fail_closed=closed, signal_mtu=self.random.random() < 0.5, sticky=sticky,
        )  # fmt: skip

    def step(self) -> None:
        kind = self.random.random()
        if kind < 0.01:
            self.reload()
        elif kind < 0.2:
            self.now_ns += int(self.random.expovariate(1 / 3e6))
        elif kind < 0.201:
            self.now_ns += self.random.randrange(1 << 36)
        self.driver.advance(self.now_ns)
        self.queue_one()
        self.check()

    def packet(self) -> bytes:
        payload = self.random.randbytes(self.random.choice((0, 1, 7, 40, 41, 1200)))
        version, port = self.random.choice((4, 6)), self.random.randint(1, 8)
        if self.random.random() < 0.5:
            return datagram(payload, version, port)
        return segment(payload, port, version)

    def queue_one(self) -> None:
        self.queued += 1
        packet, flags = self.packet(), self.random.choice((0, 0, GSO))
        if self.random.random() < 0.1:
            packet, flags = packet[: self.random.randint(1, len(packet))], flags | TRUNCATED
        self.waiting.add(self.queued)
        verdict, after = self.driver.process(
            packet, self.random.randint(0, 1), class_id=self.random.randint(0, 4), flags=flags,
            mtu=self.random.choice((0, 68, 1280, 1500)), queue_id=self.queued,
        )  # fmt: skip
        if verdict != HOLD:
            self.conclude(self.queued, verdict, after)

    def conclude(self, queue_id: int, verdict: int, packet: bytes) -> None:
        self.waiting.remove(queue_id)  # KeyError: a second verdict
        self.verdicts[verdict] += 1
        assert verdict in (PASS, REWRITTEN, DROP)
        assert verdict != REWRITTEN or is_sound(packet), packet.hex()

    def check(self) -> None:
        for kind, queue_id, what, packet in self.driver.events:
            if kind == "held":
                self.conclude(queue_id, what, packet)
            elif kind == "clone":
                assert is_sound(packet), packet.hex()
            else:
                assert what < 1500
        self.driver.events.clear()
        counters, live = self.worker.counters(), self.worker.live
        assert counters["received"] == self.queued
        assert counters["held"] == len(self.waiting)
        for name, verdict in (("passed", PASS), ("rewritten", REWRITTEN), ("dropped", DROP)):
            assert counters[name] == self.verdicts[verdict]
        copies = counters["clones"] - counters["clones_ended"]
        assert live["owned"] == counters["held"] + copies <= self.max_held
        self.check_flows(live["flows"])

    def check_flows(self, live: int) -> None:
        """No instance has counted more calls than packets and copies can have come to it."""
        flows = self.worker.flows()
        assert len(flows) == live
        most = self.queued + self.worker.counters()["clones"]
        for instance in (each for flow in flows for each in flow["instances"]):
            assert 0 <= instance["counters"]["calls"] <= most

    def end(self) -> None:
        self.worker.publish(ClassTable([]))
        self.driver.rest()
        self.driver.close()
        self.check()
        assert not self.waiting
        assert set(self.worker.live.values()) == {0}
        assert self.worker.reclaim()
        assert self.chaos.late() == 0


@pytest.mark.parametrize("mischief", [False, True], ids=["allowed", "mischief"])
def test_nothing_is_lost_or_touched_late(chaos: Any, driver: Any, mischief: bool) -> None:
    until, seed, steps = time.monotonic() + SECONDS / 2, SEED, 0
    while time.monotonic() < until:
        seed += 1
        print(f"LAYER45_FUZZ_SEED={seed - 1}", file=sys.stderr)
        run = Run(chaos, driver, mischief, seed)
        for _ in range(3000):
            run.step()
            steps += 1
        run.end()
    print(f"{steps} packets", file=sys.stderr)
