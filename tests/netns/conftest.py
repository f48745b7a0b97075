"""The namespaces these tests live in. A test that needs root fails without it: a skip is no pass."""

import os
from collections.abc import Iterator

import pytest

from .topology import Hosts, two_hosts


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail early, with the reason, what cannot run here."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail("needs root: run the tests as root (make test)", pytrace=False)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two fresh hosts `a` and `b` on one wire; see topology.py."""
    with two_hosts() as pair:
        yield pair
