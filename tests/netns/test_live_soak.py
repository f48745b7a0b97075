"""A soak of a few seconds: `python -m perf.soak` in small, with a reload every second and a new daemon.

host a: daemon, and programs that send -> wire -> host b: daemon, and programs that listen
"""

import pytest

from perf import soak
from perf.soak_load import SERVICES

pytestmark = pytest.mark.root


def test_daemons_stay_as_they_are() -> None:
    found = soak.run(seconds=6, change_every_s=1, restart_every_s=2.5)
    assert list(found.violations) == []
    assert all(each.arrived > 0 for each in found.deliveries.values())
    assert len(found.deliveries) == 5
    assert all(found.changes.values()), found.changes
    assert {len(samples) > 10 for samples in found.series.values()} == {True}
    assert len({each.pid for each in found.series["a"]}) == 1
    assert len({each.pid for each in found.series["b"]}) > 1
    assert len(SERVICES) == 6
