"""When an old version of a policy is over, by what engine and conntrack say."""

import time
from typing import Any

import pytest

from layer45.loader import Plan
from layer45.old_versions import OldVersions

from .conftest import Configuration

TEXT = '[policy.voice]\nversion = "{}"\nmatch = {{ protocol = "udp" }}\n'


@pytest.fixture
def plan(configuration: Configuration) -> Plan:
    """voice@1 has class 1."""
    configuration.settings("udp_idle_s = 10\ntcp_idle_s = 20\n")
    configuration.policies(TEXT.format(1))
    first = configuration.load()
    configuration.policies(TEXT.format(2))
    return configuration.load(first)


def stats(flows: int) -> dict[str, Any]:
    return {"voice": {"flows": 3}, "voice@1": {"flows": flows}}


def test_flows_of_the_engine_or_of_conntrack_keep_it(plan: Plan) -> None:
    asked = []
    known: list[bool | None] = [True]

    def has(value: int, mask: int) -> bool | None:
        asked.append((value, mask))
        return known[0]

    old = OldVersions(0, has)
    assert old.over(plan, lambda: stats(1)) == []
    assert asked == []
    assert old.over(plan, lambda: stats(0)) == []
    assert asked == [(plan.rules.marks.spread(1), plan.rules.marks.class_mask)]
    known[0] = False
    assert old.over(plan, lambda: stats(0)) == ["voice@1"]


def test_where_conntrack_cannot_tell_time_must(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    old = OldVersions(0, lambda value, mask: None)
    found = []
    for now[0], flows in ((1000.0, 0), (1015.0, 1), (1016.0, 0), (1036.0, 0), (1036.5, 0)):
        found.append(old.over(plan, lambda: stats(flows)))  # noqa: B023  called at once
    assert found == [[], [], [], [], ["voice@1"]]


def test_it_does_not_look_all_the_time(plan: Plan) -> None:
    old = OldVersions(60, lambda value, mask: True)
    looked = []
    for _ in range(3):
        old.over(plan, lambda: looked.append(1) or stats(0))  # type: ignore[func-returns-value]
    assert len(looked) == 1
