"""How much blocks may lose: the distribution of one block's losses, and the bounds of many."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layer45.loss_model import independent_residual, lost_of_block, lost_within


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 40), st.integers(0, 12))
def test_a_block_loses_what_the_residual_says(loss: float, k: int, m: int) -> None:
    block = lost_of_block(loss, k, m)
    assert block.sum() == pytest.approx(1) and block.min() > -1e-12
    assert block @ np.arange(k + 1) / k == pytest.approx(independent_residual(loss, k, m), abs=1e-12)


@settings(deadline=None)
@given(st.floats(0.01, 0.5), st.integers(1, 5), st.integers(0, 3), st.integers(1, 40), st.floats(0.5, 0.999))
def test_blocks_lose_what_they_do_one_after_the_other(loss, k, m, blocks, certainty):
    block, all_of_them = lost_of_block(loss, k, m), np.ones(1)
    for _ in range(blocks):
        all_of_them = np.convolve(all_of_them, block)
    least, most = lost_within(block, blocks, certainty)
    rare = (1 - certainty) / 2 + 1e-9
    assert all_of_them[:least].sum() <= rare and all_of_them[most + 1 :].sum() <= rare
    assert all_of_them[least : most + 1].sum() >= certainty - 1e-9


def test_blocks_that_lose_nothing_lose_nothing() -> None:
    assert lost_within(lost_of_block(0.0, 10, 3), 1000, 0.999) == (0, 0)
    assert lost_within(lost_of_block(1.0, 10, 3), 1000, 0.999) == (10000, 10000)
