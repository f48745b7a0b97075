"""Hosts that run a chain: the plain reference, and the compiled engine."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ..modules.wire import unnumbered
from ..unit.compiled import compiled
from .chains import Chain
from .engine import Engine
from .model_tcp import Endpoint, Profile
from .network import CALM, Ends, Network, Weather
from .packets import ip_header, parse
from .reference import Host

ADDRESSES = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}
HEADER_BYTES = {4: 40, 6: 60}
DIGESTS = (0x1234, 0xABCD)

Pair = Callable[..., tuple[Ends, Ends]]


def reference_pair(chain: Chain, mtu: int = 1500) -> tuple[Ends, Ends]:
    return Host(chain.stages, DIGESTS, mtu), Host(chain.mirrored(), DIGESTS[::-1], mtu)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Workers without a kernel, driven from Python."""
    return compiled(Path(__file__).parents[1] / "unit/driver", tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(Path(__file__).parent / "shapes", tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="session")
def engine_pair(driver: Any, shapes: Any) -> Pair:
    def make(chain: Chain, mtu: int = 1500) -> tuple[Ends, Ends]:
        return (
            Engine(driver, shapes.ops, chain.stages, DIGESTS, mtu),
            Engine(driver, shapes.ops, chain.mirrored(), DIGESTS[::-1], mtu),
        )

    return make


class Twins:
    """The engine, and the reference beside it: both say the same."""

    def __init__(self, engine: Ends, reference: Ends) -> None:
        self.engine, self.reference = engine, reference

    def egress(self, packet: bytes) -> list[bytes]:
        return self._same(packet, self.engine.egress(packet), self.reference.egress(packet))

    def ingress(self, packet: bytes) -> list[bytes]:
        return self._same(packet, self.engine.ingress(packet), self.reference.ingress(packet))

    def _same(self, packet: bytes, said: list[bytes], expected: list[bytes]) -> list[bytes]:
        if list(map(unnumbered, said)) != list(map(unnumbered, expected)):
            shown = "\n".join(str(parse(each)) for each in [packet, *said, *expected])
            raise AssertionError(f"the packet, the engine's, the reference's:\n{shown}")
        return said


@pytest.fixture(scope="session")
def twin_pair(engine_pair: Pair) -> Pair:
    def make(chain: Chain, mtu: int = 1500) -> tuple[Ends, Ends]:
        twins = zip(engine_pair(chain, mtu), reference_pair(chain, mtu), strict=True)
        left, right = (Twins(engine, reference) for engine, reference in twins)
        return left, right

    return make


@pytest.fixture(params=["reference", "engine"])
def either_pair(request: pytest.FixtureRequest) -> Pair:
    """As pair, where the two need not say the same of what is worth nothing."""
    return reference_pair if request.param == "reference" else request.getfixturevalue("engine_pair")


@pytest.fixture(params=["reference", "twins"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Makes two hosts that run a chain and its mirror image: pair(chain, mtu)."""
    return reference_pair if request.param == "reference" else request.getfixturevalue("twin_pair")


def network(
    hosts: tuple[Ends, Ends],
    random: Random,
    profiles: tuple[Profile, Profile],
    sizes: tuple[int, int],
    version: int = 4,
    weather: Weather = CALM,
    mtu: int = 1500,
) -> Network:
    """With a random stream each way."""
    headers = [ip_header(version, *ADDRESSES[version][::step]) for step in (1, -1)]
    sides: list[tuple[Endpoint, Ends]] = [
        (Endpoint(header, ports, random.randbytes(size), random, profile), host)
        for header, ports, size, profile, host in zip(
            headers, [(4000, 5000), (5000, 4000)], sizes, profiles, hosts, strict=True
        )
    ]
    return Network(sides, random, weather, mtu)
