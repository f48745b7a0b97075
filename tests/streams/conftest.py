"""Hosts that run a chain: the plain reference, and the compiled engine."""

from collections.abc import Callable
from random import Random

import pytest

from .chains import Chain
from .model_tcp import Endpoint, Profile
from .network import CALM, Ends, Network, Weather
from .packets import ip_header
from .reference import Host

ADDRESSES = {4: ("10.77.0.1", "10.77.0.2"), 6: ("fd77::1", "fd77::2")}
HEADER_BYTES = {4: 40, 6: 60}
DIGESTS = (0x1234, 0xABCD)

Pair = Callable[[Chain, int], tuple[Ends, Ends]]


def reference_pair(chain: Chain, mtu: int = 65535) -> tuple[Ends, Ends]:
    return (
        Host(chain.stages, DIGESTS, chain.growth_bytes, mtu),
        Host(chain.mirrored(), DIGESTS[::-1], chain.growth_bytes, mtu),
    )


@pytest.fixture(params=["reference"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Two hosts that run a chain and its mirror image."""
    return reference_pair


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
