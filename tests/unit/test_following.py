"""What policies name of the host is looked for again; what fails is told once, and tried again."""

from typing import Any, cast

import structlog
from structlog.testing import capture_logs

from layer45.daemon_parts import Rules
from layer45.errors import Layer45Error
from layer45.following import Following


class StandInRules:
    """changed: whether cgroups are found anew. fails: why they cannot be looked for."""

    def __init__(self) -> None:
        self.changed, self.fails = False, ""
        self.gone = ["system.slice/x.service"]

    def find_cgroups(self) -> bool:
        if self.fails:
            raise Layer45Error(self.fails)
        return self.changed

    def missing_cgroups(self) -> list[str]:
        return self.gone

    def find_programs(self) -> bool:
        return False

    def missing_programs(self) -> list[str]:
        return ["/usr/bin/phone"]


def events(following: Following) -> list[tuple[str, str]]:
    with capture_logs() as logs:
        following.look()
    return [(each["log_level"], str(each["event"])) for each in logs]


def followed() -> tuple[StandInRules, Following]:
    rules = StandInRules()
    return rules, Following(cast(Rules, rules), structlog.get_logger())


def test_what_came_is_told_with_what_is_missing_still() -> None:
    rules, following = followed()
    assert events(following) == []
    rules.changed = True
    assert events(following) == [
        ("info", "cgroups were found anew"),
        ("warning", "cgroups that policies name are missing"),
    ]
    rules.gone = []
    assert events(following) == [("info", "cgroups were found anew")]


def test_a_failure_is_told_once_until_it_is_another() -> None:
    """It does not end the daemon, and programs are looked for all the same."""
    rules, following = followed()
    told = [("error", "cgroups that policies name cannot be followed")]
    for reason, expected in (("busy", told), ("busy", []), ("full", told), ("", []), ("full", told)):
        rules.fails = reason
        assert events(following) == expected


def test_missing_ones_are_lines_for_people() -> None:
    _, following = followed()
    assert following.missing() == [
        "cgroup system.slice/x.service: is not there now, so nobody is in it",
        "program /usr/bin/phone: is not there now",
    ]
    logs: list[Any]
    with capture_logs() as logs:
        following.tell_missing()
    assert [each["paths"] for each in logs] == ["system.slice/x.service", "/usr/bin/phone"]
