"""Doctor: what it makes of a host, and that it changes nothing there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from layer45 import doctor_clashes, doctor_host, doctor_kernel
from layer45.doctor import Finding, fit, found
from layer45.doctor_clashes import (
    WHOLE_MARK,
    Use,
    free_mask,
    known_ranges,
    mark_clash,
    mark_uses,
    queue_clash,
    routing_uses,
)

OURS = 0x30FF


@pytest.mark.parametrize(
    ("rule", "masks"),
    [
        # Tailscale
        ("-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000", [0xFF0000]),
        ("-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT", [0xFF0000]),
        # Calico
        ("-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT", [0x10000]),
        ("-A cali-x -j MARK --set-xmark 0x0/0xe0000", [0xE0000]),
        # kube-proxy
        ("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000", [0x4000]),
        # the whole mark
        ("-A PREROUTING -j MARK --set-mark 0x1", [WHOLE_MARK]),
        ("-A PREROUTING -m mark --mark 0x1 -j DROP", [WHOLE_MARK]),
        ("-A PREROUTING -j CONNMARK --restore-mark", [WHOLE_MARK]),
        ("-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xf0 --ctmask 0xf0", [0xF0, 0xF0]),
        # nft
        ("meta mark & 0x00ff0000 == 0x00040000 accept", [0xFF0000]),
        ("meta mark and 0x0000c000 == 0x00004000 masquerade", [0xC000]),
        ("meta mark set 0x00000001", [WHOLE_MARK]),
        ("meta mark set mark and 0xff00ffff xor 0x40000", [0x00FF0000]),
        ("ct mark set meta mark", [WHOLE_MARK]),
        ("meta mark set meta mark | 0x00000200", [0x200]),
        # ours, and rules without marks
        ("-A L45-l45-out -m mark --mark 0x2000/0x2000 -j RETURN", []),
        ("-A OUTPUT -j L45-l45-out", []),
        ("-A INPUT -p tcp --dport 22 -j ACCEPT", []),
    ],
)
def test_the_bits_a_rule_uses(rule: str, masks: list[int]) -> None:
    assert [use.mask for use in mark_uses([rule])] == masks


@pytest.mark.parametrize(
    ("mask", "clashes"), [(0xFF0000, False), (0x10, True), (WHOLE_MARK, True), (0xC000, False)]
)
def test_a_clash_is_a_common_bit(mask: int, clashes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    finding = mark_clash(OURS, [Use("-A KUBE-X -j MARK", mask)])
    assert (finding.result == "warn") is clashes
    assert ("kube-proxy uses" in finding.detail) is clashes


def test_the_mask_it_proposes_is_free() -> None:
    assert free_mask(0x7, [Use("x", 0xF)]) == 0x70
    crowded = free_mask(OURS, [Use("x", 0xFF), Use("y", 0x3000)])
    assert crowded.bit_count() == OURS.bit_count()
    assert not crowded & 0x30FF
    assert free_mask(OURS, [Use("x", WHOLE_MARK)]) == 0


def test_the_default_mask_is_out_of_everybodys_way() -> None:
    assert known_ranges(OURS).result == "ok"
    assert "Cilium" in known_ranges(0x0F00).detail


def test_routing_rules_look_at_marks_too() -> None:
    document = json.dumps([{"priority": 5210, "fwmark": "0x80000", "fwmask": "0xff0000"},
                           {"priority": 9, "fwmark": "0x1"}, {"priority": 0, "src": "all"}])  # fmt: skip
    assert [use.mask for use in routing_uses(document)] == [0xFF0000, WHOLE_MARK]
    assert routing_uses("no json") == []
    assert routing_uses("") == []


def test_other_queues_near_ours_are_named() -> None:
    assert queue_clash(4500, ["-A FORWARD -j NFQUEUE --queue-balance 4502:4505"]).result == "warn"
    assert queue_clash(4500, ["queue flags bypass to 4500-4503"]).result == "warn"
    assert queue_clash(4500, ["-A FORWARD -j NFQUEUE --queue-num 0"]).result == "ok"
    assert queue_clash(4500, ["-A L45-l45-hit1 -j NFQUEUE --queue-num 4500"]).result == "ok"


@pytest.mark.parametrize(
    ("release", "result"),
    [("6.18.44-fc", "ok"), ("4.14.0", "ok"), ("4.9.337", "missing"), ("3.10", "missing")],
)
def test_old_kernels_are_refused(release: str, result: str) -> None:
    assert doctor_host.kernel_version(release).result == result


def test_every_finding_that_is_not_well_has_a_command() -> None:
    for finding in [*doctor_host.examine(), *doctor_kernel.examine(), *doctor_clashes.examine(OURS, 4500)]:
        assert finding.result == "ok" or finding.mend, finding
        assert "\n" not in finding.detail


def test_only_what_is_required_makes_a_host_unfit() -> None:
    missing = found("a", "b", False, "gone", "get it", required=True)
    wanting = found("a", "b", False, "gone", "get it")
    assert (missing.result, wanting.result) == ("missing", "warn")
    assert not fit([wanting, missing])
    assert fit([wanting, Finding("a", "b", "ok", "there", required=True)])


@pytest.mark.root
def test_the_hosts_rules_stay_as_they_are(tmp_path: Path) -> None:
    """In a namespace of its own, so that nothing else changes them meanwhile; rules are there to be seen."""
    script = (
        "iptables -t mangle -A PREROUTING -j MARK --set-xmark 0x4000/0x4000;"
        " iptables-save | grep -v '^#' > $1/before;"
        f" {sys.executable} -m layer45 doctor --json > $1/report; iptables-save | grep -v '^#' > $1/after"
    )
    subprocess.run(["unshare", "--net", "sh", "-c", script, "sh", tmp_path], check=True, timeout=120)
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()
    report = json.loads((tmp_path / "report").read_text())
    assert {check["area"] for check in report["checks"]} >= {"netfilter", "clashes", "compiled", "cgroups"}
    assert all(check["result"] in ("ok", "warn", "missing") for check in report["checks"])
