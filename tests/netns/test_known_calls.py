"""The engine's calls: what they put into the map is what the rules' programs and the cleaning ask for."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layer45.fastpath.worker import Worker
from layer45.rules import bpf
from layer45.rules.known_program import CUSTOMIZED, KEY_BYTES, VALUE_BYTES

from ..unit.compiled import compiled
from .known_map import key_of

pytestmark = pytest.mark.root

ONE, TWO, THREE = (key_of("10.77.0.1", port, "fd77::2", 2000) for port in (1, 2, 3))


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = Path(__file__).parents[1] / "unit/known_calls"
    return compiled(folder, tmp_path_factory.mktemp("known_calls"))


@pytest.fixture
def small() -> Iterator[int]:
    """A map for two connections."""
    made = bpf.create_hash(KEY_BYTES, VALUE_BYTES, 2, "layer45_test")
    yield made
    os.close(made)


def worker(descriptor: int = -1) -> Worker:
    return Worker(max_flows=1, max_held=0, memory_bytes=1 << 12, known_fd=descriptor)


def content(descriptor: int) -> dict[bytes, int]:
    return {
        key: struct.unpack("=I", value)[0] for key, value in bpf.entries(descriptor, KEY_BYTES, VALUE_BYTES)
    }


def test_a_connection_comes_is_agreed_upon_and_goes(calls: Any, small: int) -> None:
    one = worker(small)
    assert calls.add(one, ONE, 7) == 0
    assert content(small) == {ONE: 7}
    assert calls.customize(one, ONE, 7) == 0
    assert content(small) == {ONE: 7 | CUSTOMIZED}
    assert calls.add(one, ONE, 300) == 0  # its ports again, another class
    assert content(small) == {ONE: 300}
    assert calls.remove(one, ONE) == calls.remove(one, ONE) == 0
    assert content(small) == {}
    assert one.counters()["known_errors"] == 0


def test_a_full_map_refuses_and_it_is_counted(calls: Any, small: int) -> None:
    one, other = worker(small), worker(small)
    assert [calls.add(one, ONE, 1), calls.add(other, TWO, 1), calls.add(one, THREE, 1)] == [0, 0, -1]
    assert calls.customize(one, TWO, 1) == 0
    assert (one.counters()["known_errors"], other.counters()["known_errors"]) == (1, 0)
    assert calls.remove(other, ONE) == calls.add(one, THREE, 1) == 0
    assert content(small) == {TWO: 1 | CUSTOMIZED, THREE: 1}


def test_without_a_map_everything_is_a_success(calls: Any) -> None:
    one = worker()
    assert [calls.add(one, ONE, 1), calls.customize(one, ONE, 1), calls.remove(one, ONE)] == [0, 0, 0]
    assert one.counters()["known_errors"] == 0


def test_what_is_no_map_is_counted(calls: Any) -> None:
    with Path("/dev/null").open() as nothing:
        one = worker(nothing.fileno())
        assert [calls.add(one, ONE, 1), calls.customize(one, ONE, 1), calls.remove(one, ONE)] == [-1, -1, -1]
    assert one.counters()["known_errors"] == 3
