"""Whatever the wire does, streams arrive as they were sent, and no number says what is not so."""

import os
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .chains import CHAINS
from .conftest import HEADER_BYTES, Pair, network
from .model_tcp import Profile
from .network import Weather

EXAMPLES = settings(
    max_examples=int(os.environ.get("STREAM_EXAMPLES", "12")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a seed does not shrink
)
WRAP = 1 << 32

isns = st.integers(0, WRAP - 1) | st.integers(WRAP - 5000, WRAP - 1)
profiles = st.builds(
    Profile,
    isn=isns,
    scale=st.sampled_from([None, 0, 1, 7, 14]),
    sack=st.booleans(),
    timestamps=st.booleans(),
    buffer_bytes=st.sampled_from([300, 1500, 6000, 40_000]),
    urgent=st.sampled_from([False, False, True]),
)
rates = st.sampled_from([0.0, 0.05, 0.2])
weathers = st.builds(Weather, rates, rates, rates, rates, rates)
sizes = st.tuples(st.integers(0, 6000), st.integers(0, 6000))
seeds = st.integers(0, 1 << 32)
named = pytest.mark.parametrize("name", CHAINS)


@named
@given(profiles=st.tuples(profiles, profiles), weather=weathers, sizes=sizes, seed=seeds, both=st.booleans())
@EXAMPLES
def test_streams_arrive(
    pair: Pair, name: str, profiles: tuple[Profile, Profile], weather: Weather, sizes: tuple[int, int],
    seed: int, both: bool,
) -> None:  # fmt: skip
    """both: simultaneous open."""
    chain, version = CHAINS[name], 6 if seed % 2 else 4
    profiles = tuple(with_unit(replace(each, mss=chain.mss)) for each in profiles)  # type: ignore[assignment]
    mtu = HEADER_BYTES[version] + chain.mss
    wire = network(pair(chain, mtu), Random(seed), profiles, sizes, version, weather, mtu)
    wire.open(both)
    wire.run()
    if max(chain.wire_bytes(each.buffer_bytes) for each in profiles) < 60_000:  # fits in any window field
        assert sum(endpoint.surprises for endpoint, _ in wire.sides) == 0


def with_unit(profile: Profile) -> Profile:
    """A buffer of whole units of the window, so that it never shrinks behind a SYN."""
    unit = 1 << (profile.scale or 0)
    return replace(profile, buffer_bytes=max(2, -(-profile.buffer_bytes // unit)) * unit)
