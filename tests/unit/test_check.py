# ruff: noqa: E501 (messages stand whole, as a user sees them)
"""The report of `layer45 check`: plain data, all problems, and what is missing on this host."""

import json
from pathlib import Path
from typing import Any

from layer45.check import check
from layer45.modulefolder import SHIPPED


def site(report: dict[str, Any]) -> list[str]:
    return [each["name"] for each in report["modules"] if not each["shipped"]]


def test_a_good_configuration(configuration: Any) -> None:
    configuration.module(
        "one", code="class Module:\n def egress(self, packet): pass", growth_bytes={"back": 20}
    )
    configuration.policies(
        '[policy.p]\nsummary = "s"\nmatch = { protocol = "udp" }\nchain = { module = "one" }\n[policy.q]\nstate = "standby"'
    )
    report = check(configuration.directory)
    assert json.loads(json.dumps(report)) == report
    assert (report["ok"], report["problems"], report["warnings"]) == (True, [], [])
    first, second = report["policies"]
    assert first == {
        "name": "p", "summary": "s", "version": "", "state": "active", "priority": 0, "on_failure": "open", "mtu": "fragment",
        "apply_now": False, "file": f"{configuration.directory}/policies/a.toml", "line": 1, "class": 1, "path": "queue",
        "queue": {"first": 4500, "workers": 1}, "protocols": ["udp"], "growth_bytes": {"front": 0, "back": 20},
        "payload_bytes_in_mtu_1500": {"ipv4/udp": 1452, "ipv6/udp": 1432}, "flow_state_bytes": 0,
        "reads": "payload", "copy_bytes": 65531, "gso": False, "modules": ["one"], "replay_only": [],
    }  # fmt: skip
    assert (second["name"], second["state"], "class" in second) == ("q", "standby", False)
    assert site(report) == ["one"]


def test_problems_of_settings_policies_and_unused_modules_together(configuration: Any) -> None:
    configuration.settings("worker = 1")
    configuration.module("bad", abi=2)
    configuration.policies("[policy.p]\nmtu = 1")
    report = check(configuration.directory)
    assert not report["ok"]
    assert report["policies"] == []
    assert [line.split(": ")[1] for line in report["problems"]] == ["worker", "module.abi", "policy.p.mtu"]


def test_an_unused_broken_module_stops_check_but_not_the_plan(configuration: Any) -> None:
    configuration.module("bad", abi=2)
    configuration.policies("[policy.p]")
    report = check(configuration.directory)
    assert (report["ok"], len(report["problems"]), report["warnings"]) == (False, 1, [])
    assert [each["name"] for each in report["policies"]] == ["p"]


def test_lines_are_sorted_as_numbers(configuration: Any) -> None:
    configuration.policies("[policy.p]\n" + "".join(f"x{n} = 1\n" for n in range(12)))
    lines = [int(line.split(":")[1]) for line in check(configuration.directory)["problems"]]
    assert lines == list(range(2, 14))


def test_what_this_host_lacks(configuration: Any) -> None:
    configuration.module("raw")
    configuration.policies(
        '[policy.p]\nmatch = { protocol = "udp", cgroup = ["l45-none"], unless = { cgroup = "l45-no" } }\n'
        'chain = { module = "raw" }'
    )
    report = check(configuration.directory)
    assert report["ok"]
    first, second, third = report["warnings"]
    assert "a.toml:2: policy.p.match.cgroup: " in first
    assert "a.toml:2: policy.p.match.unless.cgroup: " in second
    assert third == f"{configuration.directory}/modules/raw: module raw is not built"


def test_a_missing_directory(tmp_path: Path) -> None:
    report = check(tmp_path / "none")
    assert not report["ok"]
    assert len(report["problems"]) == 1
    shipped = {folder.parent.name for folder in SHIPPED.glob("*/module.toml")}
    assert {each["name"] for each in report["modules"]} == shipped
