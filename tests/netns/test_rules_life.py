"""Rules come in one step, are the same after a second time, and leave nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layer45.rules import backend, cgroups, iptables_live, nft
from layer45.rules.diversion import Diversion, MarkLayout, QueueGroup, RulePlan, Selector
from layer45.rules.errors import RulesError

from .queue_recorder import recording
from .rule_plans import networks, plan
from .test_rules_matching import ALICE, V4, ping_pong
from .topology import Host, Hosts

pytestmark = pytest.mark.root

MUCH = plan(
    Selector(user=(61001, 61002), remote=networks("10.0.0.0/8", "fd00::/8", "192.168.0.0/16")),
    (Selector(("udp",), local_port=((5004, 5100),)), Selector(user=(61001,))),
    Selector(("tcp",), remote_port=((80, 80), (443, 443))),
    workers=3,
)
LITTLE = plan(Selector(("udp",), remote_port=((53, 53),)))
FOREIGN = {
    "nothing": [],
    "an empty table": ["-t mangle -N X", "-t mangle -X X"],
    "rules before us": ["-t mangle -A OUTPUT -j MARK --set-mark 0x40000", "-A INPUT -j ACCEPT"],
    "a policy": ["-t mangle -P INPUT ACCEPT", "-t mangle -N X", "-t mangle -A X -j RETURN"],
}


def snapshot(host: Host) -> tuple[str, ...]:
    """The whole ruleset, as three programs tell it, without counters."""
    commands = (["nft", "-s", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"])
    return tuple(
        "".join(line for line in host.run(command).stdout.splitlines(True) if line[0] not in "#:")
        for command in commands
    )


@pytest.fixture(params=FOREIGN)
def before(request: pytest.FixtureRequest, hosts: Hosts) -> tuple[str, ...]:
    """What was there before us."""
    for arguments in FOREIGN[request.param]:
        for tool in ("iptables", "ip6tables"):
            hosts.a.run([tool, *arguments.split()])
    return snapshot(hosts.a)


@pytest.mark.parametrize("wanted", [MUCH, LITTLE], ids=["much", "little"])
def test_iptables_leaves_the_ruleset_as_it_was(
    hosts: Hosts, before: tuple[str, ...], wanted: RulePlan
) -> None:
    with hosts.a.entered():
        iptables_live.install(wanted)
        assert iptables_live.installed(wanted.owner)
        once = snapshot(hosts.a)
        iptables_live.install(wanted)
        assert snapshot(hosts.a) == once != before
        backend.remove(wanted.owner)
        assert not backend.installed(wanted.owner)
        assert snapshot(hosts.a) == before
        backend.remove(wanted.owner)
        assert snapshot(hosts.a) == before


def test_iptables_replaces_one_plan_by_another(hosts: Hosts, before: tuple[str, ...]) -> None:
    with hosts.a.entered():
        iptables_live.install(LITTLE)
        little = snapshot(hosts.a)
        iptables_live.install(MUCH)
        iptables_live.install(LITTLE)
        assert sorted("".join(snapshot(hosts.a)).split("\n")) == sorted("".join(little).split("\n"))
        backend.remove("test")
    assert snapshot(hosts.a) == before


def test_base_chain_that_others_use_meanwhile_stays(hosts: Hosts) -> None:
    with hosts.a.entered():
        iptables_live.install(LITTLE)
        hosts.a.run(["iptables", "-t", "mangle", "-A", "OUTPUT", "-j", "MARK", "--set-mark", "0x40000"])
        backend.remove("test")
    assert "--set-xmark 0x40000" in snapshot(hosts.a)[1]
    assert "L45" not in "".join(snapshot(hosts.a))


def test_last_owner_turns_off_the_light(hosts: Hosts) -> None:
    before = snapshot(hosts.a)
    other = RulePlan("second", MarkLayout(0x700000, 0x800000), LITTLE.diversions)
    with hosts.a.entered():
        iptables_live.install(LITTLE)
        alone = snapshot(hosts.a)
        iptables_live.install(other)
        backend.remove("second")
        assert snapshot(hosts.a) == alone
        iptables_live.install(other)
        backend.remove("test")
        assert iptables_live.installed("second")
        backend.remove("second")
    assert snapshot(hosts.a) == before


def test_owners_with_the_same_mark_bits_are_refused(hosts: Hosts) -> None:
    with hosts.a.entered():
        iptables_live.install(LITTLE)
        alone = snapshot(hosts.a)
        with pytest.raises(RulesError, match=r"0x30ff.*expected a mark_mask without them"):
            iptables_live.install(RulePlan("second", MarkLayout(0xF, 0x10), LITTLE.diversions))
    assert snapshot(hosts.a) == alone


def test_what_a_killed_process_left_is_removed_by_another(hosts: Hosts) -> None:
    before = snapshot(hosts.a)
    code = (
        "import os, signal\n"
        "from layer45.rules import backend\nfrom layer45.rules.diversion import *\n"
        "from layer45.rules.tagger import Tagger\n"
        "plan = RulePlan('test', MarkLayout(0x10ff, 0x2000), (Diversion('p', 1, Selector(user=(0,)),"
        " None, QueueGroup(4500, 1, True)),))\n"
        "backend.install(plan, 'iptables')\ntagger = Tagger()\ntagger.apply(plan)\n"
        "import socket\nassert socket.socket().getsockopt(1, 36)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(nft.__file__).parents[2])
    done = hosts.a.run([sys.executable, "-c", code], check=False, env=os.environ | {"PYTHONPATH": root})
    assert done.returncode == -signal.SIGKILL, done.stderr
    probe = "import socket; print(socket.socket().getsockopt(1, 36))"
    assert hosts.a.run([sys.executable, "-c", probe]).stdout == "0\n"
    with hosts.a.entered():
        assert backend.installed("test")
        backend.remove("test")
    assert snapshot(hosts.a) == before


def test_namespaces_do_not_meet(hosts: Hosts) -> None:
    with hosts.a.entered():
        iptables_live.install(LITTLE)
    with hosts.b.entered():
        assert not backend.installed("test")
        backend.remove("test")
    with hosts.a.entered():
        assert backend.installed("test")


def test_a_missing_cgroup_takes_its_rules_with_it_and_no_others(hosts: Hosts) -> None:
    """Nobody is in it; the kernel refuses rules that name one."""
    wanted = plan(Selector(cgroup=("no/such",)), Selector(("udp",), user=(61001,)))
    with hosts.a.entered():
        iptables_live.install(wanted)
    told = str(snapshot(hosts.a))
    assert "61001" in told and "no/such" not in told
    written = nft.render_text(wanted).splitlines()
    of_missing = cgroups.of_missing(wanted, nft.in_cgroup)
    gone = [line for line in written if of_missing(line)]
    assert gone and gone == [line for line in written if "no/such" in line]


def test_failure_in_one_family_restores_the_other(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    render = iptables_live.render
    with hosts.a.entered():
        iptables_live.install(MUCH)
        before = snapshot(hosts.a)

        def broken(wanted: RulePlan, family: int) -> dict[str, list[str]]:
            chains = render(wanted, family)
            if family == 6:
                chains["L45-test-out"].append("-m owner --uid-owner nobody-of-this-name -j RETURN")
            return chains

        monkeypatch.setattr(iptables_live, "render", broken)
        with pytest.raises(RulesError, match=r"^ip6tables-restore: .*nobody-of-this-name") as raised:
            iptables_live.install(LITTLE)
        assert "\n" not in str(raised.value)
        after = snapshot(hosts.a)
    assert [sorted(text.splitlines()) for text in after] == [sorted(text.splitlines()) for text in before]


def test_nft_text_is_accepted_without_its_queue_and_leaves_no_trace(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "queue_statement", lambda queues: "accept")
    before = snapshot(hosts.a)
    with hosts.a.entered():
        nft.install(MUCH)
        once = snapshot(hosts.a)
        nft.install(MUCH)
        assert snapshot(hosts.a) == once != before
        nft.install(LITTLE)
        assert nft.installed("test")
        backend.remove("test")
    assert snapshot(hosts.a) == before


def test_changing_the_backend_takes_the_other_ones_rules_out(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "queue_statement", lambda queues: "accept")
    before = snapshot(hosts.a)
    with hosts.a.entered():
        assert backend.install(LITTLE, "nft") == "nft"
        assert backend.install(LITTLE, "iptables") == "iptables"
        assert not nft.installed("test")
        backend.install(LITTLE, "nft")
        assert not iptables_live.installed("test")
        backend.remove("test")
    assert snapshot(hosts.a) == before


def test_auto_takes_nft_only_where_its_queue_works(hosts: Hosts) -> None:
    with hosts.a.entered():
        before = snapshot(hosts.a)
        problem = backend.nft_queue_problem()
        assert backend.choose() == ("nft" if problem is None else "iptables")
        assert snapshot(hosts.a) == before


def test_no_packet_of_an_unchanged_policy_escapes_a_reload(hosts: Hosts) -> None:
    """A closed policy without listener drops; while plans come and go not one datagram gets through."""
    keep = Selector(("udp",), remote_port=((5004, 5004),))
    some, more = (
        plan(keep, bypass=False),
        plan(keep, Selector(("tcp",)), Selector(user=(61001,)), bypass=False),
    )
    send = (
        "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nprint('go', flush=True)\n"
        f"while True:\n try: s.sendto(b'x', ('{hosts.b.ipv4}', 5004))\n except OSError: pass\n"
    )
    with hosts.b.capture("udp port 5004") as capture, hosts.a.entered():
        iptables_live.install(some)
        sender = hosts.a.popen([sys.executable, "-c", send], stdout=subprocess.PIPE)
        assert sender.stdout is not None and sender.stdout.readline() == "go\n"
        for _ in range(15):
            iptables_live.install(more)
            iptables_live.install(some)
        sender.kill()
        sender.wait()
        sender.stdout.close()
    assert capture.packets() == []


def test_legacy_iptables_works_the_same(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    legacy = {4: "iptables-legacy", 6: "ip6tables-legacy"}
    monkeypatch.setattr(iptables_live, "TOOLS", legacy)

    def saved() -> list[str]:
        texts = [hosts.a.run([f"{tool}-save", "-t", "mangle"]).stdout for tool in legacy.values()]
        return [line for line in "".join(texts).splitlines() if line[0] not in "#:"]

    hosts.a.run(["iptables-legacy", "-t", "mangle", "-A", "OUTPUT", "-j", "MARK", "--set-mark", "0x40000"])
    before = saved()
    with hosts.a.entered(), recording(hosts.a, range(4500, 4503)) as recorder:
        iptables_live.install(MUCH)
        once = saved()
        iptables_live.install(MUCH)
        assert saved() == once != before
        ping_pong(hosts, V4, ALICE, to=5004)
        assert recorder.counts() == {"out 0x1": 1, "in 0x1": 1}
        iptables_live.install(LITTLE)
        assert iptables_live.installed("test")
        iptables_live.remove("test")
    assert saved() == before


def test_policy_with_quotes_in_its_name_is_only_a_comment(hosts: Hosts) -> None:
    queues = QueueGroup(4500, 1, True)
    odd = RulePlan("test", LITTLE.marks, (Diversion('a "b" \\ -j DROP', 1, Selector(), None, queues),))
    with hosts.a.entered():
        iptables_live.install(odd)
    assert "DROP" not in snapshot(hosts.a)[1].replace("a _b_ _ -j DROP", "")
