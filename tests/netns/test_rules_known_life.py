"""Map, programs and raw rules come before they are needed, go when they are not, and leave nothing behind."""

import ctypes
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from layer45.rules import backend, iptables_live, known, nft, pins
from layer45.rules.diversion import Diversion, MarkLayout, QueueGroup, RulePlan, Selector
from layer45.rules.errors import RulesError

from .known_map import Connections, change, connected, exchange, installed, renumbering, without_trace
from .queue_recorder import recording
from .rule_plans import plan
from .test_rules_life import LITTLE, snapshot
from .test_rules_matching import ALICE, BOB, V4
from .topology import Hosts

pytestmark = pytest.mark.root

CLONE_NEWNS = 0x00020000
STREAMS = plan(Selector(("tcp",), user=(61001,)), Selector(("tcp",)), renumbers={1}, workers=2)
OTHER = RulePlan(
    "second", MarkLayout(0x700000, 0x800000),
    (Diversion("q", 1, Selector(("tcp",), user=(61002,)), None, QueueGroup(4700, 1, True), True),),
)  # fmt: skip
FOREIGN = {
    "nothing": [],
    "an empty table": ["-t raw -N X", "-t raw -X X"],
    "rules before us": ["-t raw -A OUTPUT -j MARK --set-mark 0x40000", "-t raw -A PREROUTING -j ACCEPT"],
    "a policy": ["-t raw -P OUTPUT ACCEPT", "-t raw -N X", "-t raw -A X -j RETURN"],
}


@pytest.mark.parametrize("foreign", FOREIGN)
def test_raw_and_mangle_are_as_they_were(hosts: Hosts, foreign: str) -> None:
    for arguments in FOREIGN[foreign]:
        for tool in ("iptables", "ip6tables"):
            hosts.a.run([tool, *arguments.split()])
    before = snapshot(hosts.a)
    connections = Connections()
    with without_trace(hosts.a):
        with installed(hosts.a, STREAMS, connections):
            once = snapshot(hosts.a)
            change(hosts.a, STREAMS, connections)
            assert snapshot(hosts.a) == once != before
            assert "known-out" in once[1]
        assert snapshot(hosts.a) == before


def test_without_a_renumbering_policy_there_is_nothing_but_mangle(hosts: Hosts) -> None:
    before = snapshot(hosts.a)
    with without_trace(hosts.a):
        with hosts.a.entered():
            assert Connections().prepare(LITTLE) == -1
            backend.install(LITTLE, "iptables")
        now = snapshot(hosts.a)
        assert "table ip raw" not in now[0] and "bpf" not in now[1]
        with hosts.a.entered():
            backend.remove(LITTLE.owner)
    assert snapshot(hosts.a) == before


def test_an_unneeded_hook_stays_until_the_end_for_the_packets_that_wait(hosts: Hosts) -> None:
    before = snapshot(hosts.a)
    connections = Connections()
    with installed(hosts.a, STREAMS, connections):
        change(hosts.a, LITTLE, connections)
        names = sorted(path.name for path in pins_in(hosts))
        assert "class1-out" not in names and "known-out" in names
        now = snapshot(hosts.a)
        assert "bpf" not in now[1]
        assert "hook output priority raw" in now[0]
        change(hosts.a, STREAMS, connections)
        assert "class1-out" in {path.name for path in pins_in(hosts)}
    assert snapshot(hosts.a) == before


def pins_in(hosts: Hosts) -> list[Path]:
    with hosts.a.entered():
        return list(pins.directory("test").iterdir())


def test_a_failure_in_raw_gives_mangle_back_what_it_had(hosts: Hosts) -> None:
    with installed(hosts.a, LITTLE, Connections()):
        before = snapshot(hosts.a)
        with hosts.a.entered(), pytest.raises(RulesError, match=r"^iptables-restore: "):
            backend.install(STREAMS, "iptables")  # nothing is prepared
        after = snapshot(hosts.a)
    assert [sorted(text.splitlines()) for text in after] == [sorted(text.splitlines()) for text in before]


def test_two_daemons_side_by_side(hosts: Hosts) -> None:
    before = snapshot(hosts.a)
    alone = plan(Selector(("tcp",), user=(61001,)), renumbers={1})
    with without_trace(hosts.a):
        with recording(hosts.a, range(4700, 4701)) as second, renumbering(hosts.a, alone) as (first, _):
            with installed(hosts.a, OTHER, Connections()):
                for owner in (ALICE, BOB):
                    with connected(hosts.a, hosts.b, V4, owner) as (one, other):
                        exchange(one, other)
                assert set(first.counts()) == {"out 0x1", "in 0x1"}
                assert set(second.counts(0xFFFFFFFF)) == {"out 0x900000"}  # and its own exempt bit, no other
            seen = len(first.seen)
            with connected(hosts.a, hosts.b, V4, ALICE) as (one, other):
                exchange(one, other)
            first.counts()
            assert len(first.seen) > seen
        assert snapshot(hosts.a) == before


def test_what_a_killed_process_left_is_removed_by_another(hosts: Hosts) -> None:
    before = snapshot(hosts.a)
    code = (
        "import os, signal\n"
        "from layer45.rules import backend\nfrom layer45.rules.diversion import *\n"
        "from layer45.rules.known import KnownConnections\n"
        "plan = RulePlan('test', MarkLayout(0x10ff, 0x2000), (Diversion('p', 1,"
        " Selector(('tcp',), user=(0,)), None, QueueGroup(4500, 1, True), True),))\n"
        "known = KnownConnections()\nassert known.prepare(plan) > 0\nbackend.install(plan)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(nft.__file__).parents[2])
    with without_trace(hosts.a):
        done = hosts.a.run([sys.executable, "-c", code], check=False, env=os.environ | {"PYTHONPATH": root})
        assert done.returncode == -signal.SIGKILL, done.stderr
        with hosts.a.entered():
            assert backend.installed("test")
            backend.remove("test")
    assert snapshot(hosts.a) == before


def test_legacy_iptables_works_the_same(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at every rule of a table again when anyone changes one: the programs must keep their names."""
    monkeypatch.setattr(iptables_live, "TOOLS", {4: "iptables-legacy", 6: "ip6tables-legacy"})

    def saved() -> list[str]:
        texts = [
            hosts.a.run([f"{tool}-save", "-t", table]).stdout
            for tool in iptables_live.TOOLS.values() for table in ("raw", "mangle")
        ]  # fmt: skip
        return [line for line in "".join(texts).splitlines() if line[0] not in "#:"]

    assert_raw_is_not_made(hosts)
    before = saved()
    connections = Connections()
    with without_trace(hosts.a):
        with recording(hosts.a, range(4500, 4502)) as recorder, installed(hosts.a, STREAMS, connections):
            recorder.answer = lambda seen: connections.learn(seen) if seen.mark & 1 else None
            once = saved()
            change(hosts.a, STREAMS, connections)
            assert saved() == once != before
            with connected(hosts.a, hosts.b, V4, ALICE) as (one, other):
                exchange(one, other)
            assert set(recorder.counts()) == {"out 0x1", "in 0x1"}
            for another_one in ("-A", "-D"):
                rule = f"-t raw {another_one} OUTPUT -p udp -j MARK --set-mark 0x40000"
                hosts.a.run(["iptables-legacy", *rule.split()])
        assert saved() == before


def assert_raw_is_not_made(hosts: Hosts) -> None:
    """By a plan that does not need it."""
    with hosts.a.entered():
        iptables_live.install(LITTLE)
        assert "raw" not in Path("/proc/thread-self/net/ip_tables_names").read_text()
        iptables_live.remove("test")


def test_a_map_of_one_namespace_is_not_another_ones(hosts: Hosts) -> None:
    with installed(hosts.a, STREAMS, Connections()):
        with hosts.b.entered():
            assert pins.existing("test") == []
            assert known.remove("test").closed == 0
        assert pins_in(hosts)


def test_a_host_with_a_bpf_file_system_lends_it(hosts: Hosts, tmp_path: Path) -> None:
    """In mounts of a child's own, or daemons of other tests would take to it."""
    child = os.fork()
    if child == 0:
        try:
            _lent(hosts, tmp_path)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _lent(hosts: Hosts, directory: Path) -> None:
    """Nothing is left to undo: the mounts go with the process."""
    assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", str(directory)], check=True)
    with installed(hosts.a, STREAMS, Connections()):
        (place,) = directory.glob("layer45_test_*")
        assert (place / "map").exists()
    assert list(directory.glob("layer45*")) == []
