"""Hostile packets among those of a good connection: it goes on, whatever they say."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .chains import CHAINS
from .conftest import HEADER_BYTES, Pair, network
from .strangers import TRICKS, stranger
from .test_property import FEW, fitting, profiles, seeds, sizes, weathers


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("name", ["tag", "one in one", "two unlike stages"])
@given(profiles=st.tuples(profiles, profiles), weather=weathers, sizes=sizes, seed=seeds)
@FEW
def test_a_trick(either_pair: Pair, name: str, trick: str, profiles, weather, sizes, seed: int) -> None:
    _meet(either_pair, name, [trick], profiles, weather, sizes, seed)


@pytest.mark.parametrize("name", CHAINS)
@given(
    profiles=st.tuples(profiles, profiles),
    weather=weathers,
    sizes=sizes,
    seed=seeds,
    tricks=st.lists(st.sampled_from(sorted(TRICKS)), min_size=2, max_size=8),
)
@FEW
def test_tricks_together(either_pair: Pair, name: str, tricks, profiles, weather, sizes, seed: int) -> None:
    _meet(either_pair, name, tricks, profiles, weather, sizes, seed)


def _meet(pair: Pair, name: str, tricks: list[str], profiles, weather, sizes, seed: int) -> None:
    chain = CHAINS[name]
    mtu = HEADER_BYTES[4] + chain.mss
    profiles = [replace(each, ends="fin", urgent=False, early_bytes=0) for each in fitting(profiles, chain)]
    wire = network(pair(chain, mtu), Random(seed), (profiles[0], profiles[1]), sizes, 4, weather, mtu)
    wire.open()
    for endpoint, _ in wire.sides:
        endpoint.tolerant = True
    wire.watched = False
    wire.stranger = stranger(tricks, 0.3)
    wire.run()
