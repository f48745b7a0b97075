"""The compiled engine as a host: a worker without a queue that runs one chain."""

from collections.abc import Sequence
from typing import Any

from layer45.fastpath.chain import Chain, ClassTable, InstanceSpec
from layer45.fastpath.worker import Worker

from .layouts import Layout
from .reference import Stage

EGRESS, INGRESS = 0, 1
PASS, REWRITTEN, DROP = 1, 2, 3
NAMES = ("kind", "t", "n", "change", "key")


class Engine:
    """driver: the module of tests/unit/driver; ops: of shapes."""

    def __init__(
        self, driver: Any, ops: object, chain: Sequence[Stage], digests: tuple[int, int], mtu: int
    ) -> None:
        self.worker = Worker(max_held=64)
        specs = [spec for stage in chain for spec in instances(ops, stage)]
        self.worker.publish(ClassTable([Chain(1, "test", specs, transports=("tcp",), negotiates=digests)]))
        self.driver = driver.Driver(self.worker)
        self.driver.rest()
        self.mtu = mtu

    def egress(self, packet: bytes) -> list[bytes]:
        return self._process(packet, EGRESS)

    def ingress(self, packet: bytes) -> list[bytes]:
        return self._process(packet, INGRESS)

    def _process(self, packet: bytes, direction: int) -> list[bytes]:
        self.driver.events.clear()
        verdict, out = self.driver.process(packet, direction, mtu=self.mtu)
        assert verdict in (PASS, REWRITTEN, DROP)
        assert verdict != PASS or out == packet, "passed, but changed"
        rest = [content for _, _, _, content in self.driver.events]
        assert verdict != DROP or not rest
        return [] if verdict == DROP else [out, *rest]

    def counted(self) -> dict[str, int]:
        return {name: value for name, value in self.worker.counters().items() if value}


def instances(ops: object, stage: Stage) -> list[InstanceSpec]:
    """One for both directions where they are alike, else one for each."""
    if stage.out == stage.into:
        return [_instance(ops, stage.out, ("egress", "ingress"))]
    return [_instance(ops, stage.out, ("egress",)), _instance(ops, stage.into, ("ingress",))]


def _instance(ops: object, layout: Layout, directions: tuple[str, ...]) -> InstanceSpec:
    parameters = list(zip(NAMES, layout.parameters, strict=True))
    return InstanceSpec("shapes", ops, parameters, directions=directions, growth=layout.growth)
