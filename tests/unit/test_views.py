"""The tables that people read: everything of the document is in them, and nothing breaks on what is empty."""

from typing import Any

import pytest

from layer45.doctor import Finding
from layer45.views import show_findings, show_flows, show_report, show_stats, show_status

WHY: dict[str, Any] = {
    "since": "2026-01-03T00:00:00Z", "module": "fec", "instance": 2, "failures": 120, "packets": 130,
    "seconds": 10, "reason": "it answered ERROR",
}  # fmt: skip
STATUS: dict[str, Any] = {
    "pid": 7, "started": "2026-01-01T00:00:00Z", "uptime_s": 3725.0, "generation": 3,
    "config": "/etc/layer45", "control_socket": "/run/s.sock", "namespace": 4026531840,
    "policies": [
        {"name": "voice", "summary": "", "state": "active", "state_since": "2026-01-02T03:04:05Z",
         "state_source": "command", "disabled": WHY, "class": 1, "path": "queue",
         "path_reason": "no BPF match", "queues": [4500, 4501],
         "on_failure": "open", "chain": ["tag", "fec"], "packets": 10, "bytes": 123456},
        {"name": "spare", "summary": "", "state": "standby", "state_since": "2026-01-01T00:00:00Z",
         "state_source": "file", "disabled": None, "class": None, "path": None,
         "path_reason": "", "queues": None,
         "on_failure": "open", "chain": [], "packets": 0, "bytes": 0},
    ],
    "queues": [{"number": 4500, "alive": True}, {"number": 4501, "alive": False}],
    "rules": {"backend": "nft", "owner": "l45"},
    "privileges": {"problems": ["no filter"], "threads": [
        {"thread": "main", "count": 1, "effective": [], "raisable": [], "bounding": [],
         "no_new_privs": True, "seccomp": "off"},
        {"thread": "control", "count": 1, "effective": ["bpf", "net_admin"], "raisable": ["sys_ptrace"],
         "bounding": [], "no_new_privs": False, "seccomp": "off"},
        {"thread": "worker", "count": 3, "effective": ["net_admin"], "raisable": [], "bounding": [],
         "no_new_privs": True, "seccomp": "filter"},
    ]},
    "tagger": {"on": False, "reason": "no BPF"},
    "last_reload": {"time": 1.0, "ok": False, "problems": ["a.toml:1: bad"]},
    "warnings": ["one thing"],
}  # fmt: skip
FLOW: dict[str, Any] = {
    "protocol": "udp", "local": "10.0.0.1:5", "remote": ("fd00::1", 7), "idle_s": 1.234, "instances": [],
}  # fmt: skip


def test_status(capsys: pytest.CaptureFixture[str]) -> None:
    show_status(STATUS)
    said = capsys.readouterr().out
    for part in ("pid 7, up 1 h 2 min, generation 3", "nft, owner l45", "off: no BPF", "a.toml:1: bad",
                 "one thing", "4500-4501", "tag → fec", "123.5 kB", "standby",
                 "2026-01-02T03:04:05Z  command", "file", "  main: none\n",
                 "  control: bpf net_admin, can raise sys_ptrace, programs can gain more\n",
                 "  3 worker: net_admin, system calls filtered\n", "privileges  no filter\n",
                 "queue       voice: not in the kernel: no BPF match\n"):  # fmt: skip
        assert part in said


def test_status_says_what_is_disabled_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    show_status(STATUS)
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("disabled")] == [
        "disabled    voice, since 2026-01-03T00:00:00Z: module fec (place 2 in the chain) failed 120 of 130 "
        "packets in 10 s: it answered ERROR; its packets pass as they are; "
        "layer45 activate voice puts it back"
    ]
    assert any(line.startswith("voice") and "active, disabled" in line for line in said)
    assert not any(line.startswith("spare") and "disabled" in line for line in said)


def test_status_of_a_daemon_without_policies(capsys: pytest.CaptureFixture[str]) -> None:
    show_status({**STATUS, "policies": [], "queues": [], "last_reload": None, "warnings": []})
    assert "pid 7" in capsys.readouterr().out


def test_stats(capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "engine": {"received": 5},
        "kernel": {"passed": 6},
        "policies": {
            "p": {
                "class": 1, "packets": 5,
                "instances": [
                    {"module": "tag", "counters": {"tagged": 4}, "ratios": {"share": 2 / 3, "gone": None}}
                ],
            }
        },
        "help": {
            "kernel.passed": "K", "received": "R", "packets": "P", "tag.tagged": "T", "tag.share": "S",
            "tag.gone": "G",
        },
    }  # fmt: skip
    show_stats(document)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["received", "5", "R"] in lines
    assert ["packets", "5", "P"] in lines
    assert ["passed", "6", "K"] in lines
    assert lines[-3:] == [
        ["1", "tag:", "tagged", "4", "T"],
        ["1", "tag:", "share", "0.6667", "S"],
        ["1", "tag:", "gone", "-", "G"],
    ]


def test_flows(capsys: pytest.CaptureFixture[str]) -> None:
    show_flows([FLOW])
    head, row = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head == ["PROTOCOL", "LOCAL", "REMOTE", "IDLE_S"]
    assert row == ["udp", "10.0.0.1:5", "[fd00::1]:7", "1.2"]
    show_flows([])
    assert capsys.readouterr().out == "no flows\n"


def test_flows_say_what_was_counted_in_them(capsys: pytest.CaptureFixture[str]) -> None:
    fec = {
        "module": "fec",
        "counters": {"sources": 120, "lost": 0},
        "ratios": {"share": 0.5, "x": 0.0, "y": None},
    }
    tag = {"module": "tag", "counters": {"gaps": 1}, "ratios": {}}
    idle = {"module": "idle", "counters": {"never": 0}, "ratios": {}}
    show_flows([{**FLOW, "instances": [idle, fec, tag]}, FLOW, {**FLOW, "instances": [idle]}])
    head, *rows = capsys.readouterr().out.splitlines()
    assert [row[head.index("COUNTED") :] for row in rows] == [
        "fec: sources 120, share 0.5; tag: gaps 1",
        "",
        "",
    ]


def test_a_report_with_problems_says_nothing_here(capsys: pytest.CaptureFixture[str]) -> None:
    show_report({"ok": False, "policies": []})
    assert capsys.readouterr().out == ""
    show_report({"ok": True, "policies": []})
    assert capsys.readouterr().out == "ok: 0 policies\n"


def test_findings_end_with_what_mends_them(capsys: pytest.CaptureFixture[str]) -> None:
    show_findings([Finding("a", "fine", "ok", "d"), Finding("a", "gone", "missing", "d", True, "get it")])
    said = capsys.readouterr().out
    assert "gone     get it" in said
    assert said.endswith("cannot run the daemon yet.\n")
    show_findings([Finding("a", "fine", "ok", "d")])
    assert "TO MEND" not in capsys.readouterr().out
