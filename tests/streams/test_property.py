"""Whatever the wire does, streams arrive as they were sent, and no number says what is not so."""

import os
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from .chains import CHAINS, Chain
from .conftest import HEADER_BYTES, Pair, network
from .model_tcp import Profile
from .network import Weather

EXAMPLES = settings(
    max_examples=int(os.environ.get("STREAM_EXAMPLES", "12")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a seed does not shrink
)
FEW = settings(EXAMPLES, max_examples=EXAMPLES.max_examples // 3)
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
    early_bytes=st.sampled_from([0, 0, 0, 1, 100, 250]),
    accepts_early=st.sampled_from([0, 0.5, 1]),
    burst=st.sampled_from([1, 1, 3]),
    ends=st.sampled_from(["fin", "fin", "reset"]),
)
far = st.integers(WRAP - 3000, WRAP) | st.integers(1, 3 * WRAP)
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
    profiles = fitting(profiles, chain)
    mtu = HEADER_BYTES[version] + chain.mss
    wire = network(pair(chain, mtu), Random(seed), profiles, sizes, version, weather, mtu)
    wire.open(both)
    wire.run()
    if max(chain.wire_bytes(each.buffer_bytes) for each in profiles) < 60_000:  # fits in any window field
        assert sum(endpoint.surprises for endpoint, _ in wire.sides) == 0


@pytest.mark.parametrize("name", [name for name in CHAINS if CHAINS[name].step])
@given(
    profiles=st.tuples(profiles, profiles),
    offsets=st.tuples(far, far),
    weather=weathers,
    sizes=sizes,
    seed=seeds,
)
@FEW
def test_streams_arrive_far_behind_their_start(
    pair: Pair, name: str, profiles: tuple[Profile, Profile], offsets: tuple[int, int], weather: Weather,
    sizes: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    """Offsets that 32 bits do not hold."""
    chain = CHAINS[name]
    mtu = HEADER_BYTES[4] + chain.mss
    wire = network(pair(chain, mtu), Random(seed), fitting(profiles, chain), sizes, 4, weather, mtu)
    wire.open()
    wire.warp(offsets, chain.step)
    wire.run()


def fitting(profiles: tuple[Profile, Profile], chain: Chain) -> tuple[Profile, Profile]:
    """Super-packets only where each packet is edited, for others are not cut here."""
    burst = {} if chain.cuts else {"burst": 1}
    left, right = (with_unit(replace(each, mss=chain.mss, **burst)) for each in profiles)
    return left, right


def with_unit(profile: Profile) -> Profile:
    """A buffer of whole units of the window, so that it never shrinks behind a SYN."""
    unit = 1 << (profile.scale or 0)
    return replace(profile, buffer_bytes=max(2, -(-profile.buffer_bytes // unit)) * unit)
