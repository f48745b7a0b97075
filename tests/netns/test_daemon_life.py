"""The daemon from outside: it comes, it goes, it is killed, and what each of these leaves behind.

host a: layer45 run            host b: a second daemon, or the peer of a's traffic
"""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .live_daemon import VOICE, LiveDaemon, live_daemon
from .topology import Hosts

pytestmark = pytest.mark.root

CLOSED = VOICE + 'on_failure = "closed"\n'


@pytest.fixture
def daemon(hosts: Hosts, tmp_path: Path) -> Iterator[LiveDaemon]:
    with live_daemon(hosts.a, tmp_path / "a") as made:
        yield made


def arrives(hosts: Hosts, port: int = 5000, family: int = socket.AF_INET, wait_s: float = 5) -> bool:
    """Whether a datagram from a reaches b."""
    with (
        hosts.b.socket(family, socket.SOCK_DGRAM) as receiver,
        hosts.a.socket(family, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((hosts.b.address(family), port))
        receiver.settimeout(wait_s)
        try:
            sender.sendto(b"hello", (hosts.b.address(family), port))
            return receiver.recv(100) == b"hello"
        except (TimeoutError, PermissionError):
            return False


def packets(daemon: LiveDaemon, policy: str = "voice") -> int:
    return int({p["name"]: p for p in daemon.json("status")["policies"]}[policy]["packets"])


def test_sigterm_leaves_nothing(daemon: LiveDaemon, hosts: Hosts) -> None:
    before = daemon.rules()
    daemon.start()
    assert daemon.rules() != before
    daemon.layer45("exec", "voice", "--", "true")
    assert daemon.cgroups() == [".", "voice"]
    assert arrives(hosts)
    assert daemon.end(signal.SIGTERM) == 0
    assert daemon.rules() == before
    assert daemon.cgroups() == []
    assert [path.name for path in daemon.socket.parent.iterdir()] == ["control.sock.inheritance"]
    assert hosts.a.run(["cat", "/proc/net/netfilter/nfnetlink_queue"]).stdout == ""
    assert arrives(hosts)


def test_sigint_is_as_good(daemon: LiveDaemon) -> None:
    before = daemon.rules()
    assert daemon.start().end(signal.SIGINT) == 0
    assert daemon.rules() == before


def test_the_policys_packets_and_only_those_are_diverted(daemon: LiveDaemon, hosts: Hosts) -> None:
    daemon.start()
    assert packets(daemon) == 0
    assert arrives(hosts)
    assert arrives(hosts, family=socket.AF_INET6)
    assert packets(daemon) == 2
    assert arrives(hosts, port=5001)
    assert packets(daemon) == 2
    flows = daemon.json("flows")
    assert {flow["policy"] for flow in flows} == {"voice"}
    assert len(flows) == 2
    assert daemon.json("stats")["policies"]["voice"]["packets"] == 2


def test_the_second_daemon_is_told_the_first_ones_pid(daemon: LiveDaemon) -> None:
    daemon.start()
    pid = daemon.json("status")["pid"]
    rules = daemon.rules()
    complaint = daemon.layer45("run", status=1)
    assert complaint == f"layer45: {daemon.socket}: a daemon is already running here, pid {pid}\n"
    assert daemon.rules() == rules
    assert daemon.json("status")["pid"] == pid


def test_killed_an_open_policy_passes_and_the_next_start_recovers(daemon: LiveDaemon, hosts: Hosts) -> None:
    before = daemon.rules()
    daemon.start()
    daemon.end(signal.SIGKILL)
    assert daemon.rules() != before
    assert arrives(hosts)
    daemon.start()
    assert "taking over the rules" in daemon.log_text()
    assert arrives(hosts)
    assert packets(daemon) == 1
    assert daemon.end() == 0
    assert daemon.rules() == before
    assert daemon.cgroups() == []


def test_killed_a_closed_policy_drops_until_rules_remove(daemon: LiveDaemon, hosts: Hosts) -> None:
    before = daemon.rules()
    daemon.policies(CLOSED)
    daemon.start()
    assert arrives(hosts)
    daemon.end(signal.SIGKILL)
    assert not arrives(hosts, wait_s=0.5)
    assert "no daemon is running" in daemon.layer45("status", status=1)
    daemon.layer45("rules", "--remove")
    assert daemon.rules() == before
    assert not daemon.socket.exists()
    assert arrives(hosts)


def test_rules_remove_needs_no_sound_policies(daemon: LiveDaemon) -> None:
    before = daemon.rules()
    daemon.start()
    daemon.end(signal.SIGKILL)
    daemon.policies("this is no TOML")
    daemon.layer45("rules", "--remove")
    assert daemon.rules() == before


def test_rules_remove_does_not_pull_them_from_under_a_daemon(daemon: LiveDaemon) -> None:
    daemon.start()
    rules = daemon.rules()
    assert "already running" in daemon.layer45("rules", "--remove", status=1)
    assert daemon.rules() == rules


def test_taking_over_never_opens_a_closed_policy(daemon: LiveDaemon, hosts: Hosts) -> None:
    """While a new daemon takes over from a killed one, nothing leaves but through the chain."""
    dropping = CLOSED + 'chain = [ { module = "drop" } ]\n'
    daemon.policies(dropping)
    daemon.start()
    daemon.end(signal.SIGKILL)
    with hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((hosts.b.ipv4, 5000))
        receiver.settimeout(0.3)
        flood = hosts.a.popen(["python3", "-c", FLOOD, hosts.b.ipv4])
        daemon.start()
        time.sleep(0.3)
        flood.kill()
        with pytest.raises(TimeoutError):
            receiver.recv(100)
    assert packets(daemon) > 0


READER = """
import netfilterqueue, time
queue = netfilterqueue.NetfilterQueue()
queue.bind(4500, print)
print("bound", flush=True)
time.sleep(60)
"""

FLOOD = """
import socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    while True:
        try:
            sender.sendto(b"secret", (sys.argv[1], 5000))
        except OSError:
            pass
        time.sleep(0.001)
"""


def test_a_queue_of_another_program_is_named(daemon: LiveDaemon, hosts: Hosts) -> None:
    other = hosts.a.popen([sys.executable, "-c", READER], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == "bound\n"
    before = daemon.rules()
    complaint = daemon.layer45("run", status=1)
    assert complaint.startswith("layer45: queue 4500 is in use by another program")
    assert len(complaint.splitlines()) == 1
    assert daemon.rules() == before
    assert daemon.cgroups() == []
    assert list(daemon.socket.parent.iterdir()) == []


def test_a_start_that_fails_late_leaves_nothing(daemon: LiveDaemon) -> None:
    """The control socket is the last step; here it cannot be made."""
    before = daemon.rules()
    daemon.socket.mkdir(parents=True)
    complaint = daemon.layer45("run", status=1).splitlines()[-1]
    assert complaint == f"layer45: {daemon.socket}: is there already, and is not a socket"
    assert daemon.rules() == before
    assert daemon.cgroups() == []


def test_a_wrong_policy_is_named_and_nothing_starts(daemon: LiveDaemon) -> None:
    before = daemon.rules()
    daemon.policies('[policy.voice]\nmatch = { protocl = "udp" }\n')
    complaint = daemon.layer45("run", status=1)
    assert complaint.startswith(f"layer45: {daemon.directory}/policies/all.toml:2: ")
    assert 'did you mean "protocol"' in complaint
    assert daemon.rules() == before


def test_two_daemons_in_two_namespaces(daemon: LiveDaemon, hosts: Hosts, tmp_path: Path) -> None:
    """The same queue and class numbers, the same policy name, side by side."""
    with live_daemon(hosts.b, tmp_path / "b") as other:
        other.settings(cgroup_root=daemon.cgroup_root)
        daemon.start()
        other.start()
        for each in (daemon, other):
            each.layer45("exec", "voice", "--", "true")
        assert daemon.json("status")["namespace"] != other.json("status")["namespace"]
        assert arrives(hosts)
        assert (packets(daemon), packets(other)) == (1, 0)
        assert daemon.end() == 0
        assert daemon.cgroups() == [".", "voice"]
        assert other.json("status")["policies"][0]["name"] == "voice"
        other.layer45("exec", "voice", "--", "true")
        assert other.end() == 0
        assert daemon.cgroups() == []


def test_sd_notify_tells_every_turn(daemon: LiveDaemon, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        daemon.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        assert manager.recv(4096).startswith(b"READY=1\nSTATUS=1 policies, generation 1")
        assert manager.recv(4096) == b"WATCHDOG=1"
        daemon.layer45("reload")
        heard = b""
        while b"generation 2" not in heard:
            heard += manager.recv(4096) + b"\n"
        assert b"RELOADING=1\nMONOTONIC_USEC=" in heard
        assert heard.index(b"RELOADING=1") < heard.index(b"READY=1")
        daemon.end()
        while b"STOPPING=1" not in heard:
            heard += manager.recv(4096)


def test_without_root_one_line(daemon: LiveDaemon) -> None:
    """In a user namespace of its own the process is nobody, and still reads the files of this checkout."""
    done = daemon.host.run(["unshare", "--user", *daemon.command("run")], check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("layer45: run needs root")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("delay_s", [0.0, 0.2, 0.4, 0.6, 0.8, 1.2])
def test_a_start_that_is_interrupted_leaves_nothing(daemon: LiveDaemon, delay_s: float) -> None:
    before = daemon.rules()
    process = daemon.host.popen(daemon.command("run"), stderr=subprocess.PIPE)
    time.sleep(delay_s)
    process.terminate()
    _, said = process.communicate(timeout=10)
    assert process.returncode in (0, -signal.SIGTERM)  # killed before it did anything, or ended in order
    assert "Traceback" not in said
    assert daemon.rules() == before
    assert daemon.cgroups() == []


def test_a_log_that_nobody_reads_any_more_stops_nothing(daemon: LiveDaemon) -> None:
    before = daemon.rules()
    process = daemon.host.popen(daemon.command("run"), stderr=subprocess.PIPE)
    assert process.stderr is not None
    while "event=ready" not in process.stderr.readline():
        assert process.poll() is None
    process.stderr.close()
    daemon.layer45("reload")
    daemon.policies("nonsense")
    daemon.layer45("reload", status=1)
    assert daemon.json("status")["generation"] == 2
    process.terminate()
    assert process.wait(10) == 0
    assert daemon.rules() == before


def test_a_storm_of_signals_ends_in_order(daemon: LiveDaemon) -> None:
    before = daemon.rules()
    daemon.start()
    assert daemon.process is not None
    for number in [*[signal.SIGHUP] * 20, *[signal.SIGTERM] * 5]:
        daemon.process.send_signal(number)
        time.sleep(0.005)
    assert daemon.process.wait(30) == 0
    assert daemon.rules() == before
    assert daemon.cgroups() == []
    assert "Traceback" not in daemon.log_text()
    daemon.process = None


def test_a_second_daemon_in_one_namespace_needs_marks_and_queues_of_its_own(
    daemon: LiveDaemon, hosts: Hosts, tmp_path: Path
) -> None:
    daemon.start()
    rules = daemon.rules()
    with live_daemon(hosts.a, tmp_path / "b", CLOSED.replace("5000", "5001")) as other:
        other.settings(cgroup_root=daemon.cgroup_root + "-2")
        assert "queue 4500 is in use" in other.layer45("run", status=1)
        other.settings(cgroup_root=daemon.cgroup_root + "-2", first_queue=4600)
        assert "uses the mark bits" in other.layer45("run", status=1).splitlines()[-1]
        assert daemon.rules() == rules
        other.settings(cgroup_root=daemon.cgroup_root + "-2", first_queue=4600, mark_mask=0xFFF00000)
        other.start()
        assert arrives(hosts)
        assert arrives(hosts, port=5001)
        assert (packets(daemon), packets(other)) == (1, 1)
        assert other.end() == 0
    assert daemon.rules() == rules
    assert arrives(hosts)
