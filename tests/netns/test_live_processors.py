"""Workers keep to the processors that `worker_cpus` gives them, by the kernel, and nothing else does.

a: clients, daemon with three workers ── tag ──▶ wire ──▶ b: daemon, echo server
"""

import os
import re
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from layer45.processors import MOST, as_text, usable

from .daemons import Daemon, Service, assert_balanced, client_side, running, server_side
from .datagrams import connected, echo, exchange
from .live_daemon import live_daemon
from .topology import Hosts

pytestmark = pytest.mark.root

TAGGED = Service("tagged", 7001, '{ module = "tag", id = "w" }')
CLOSED = Service("closed", 7002, '{ module = "tag", id = "c" }', 'on_failure = "closed"')
WORKERS, FLOWS = 3, 16
# Two, where there are two; not in the order of their numbers.
LISTED = sorted(usable(), reverse=True)[-2:]
ROUND = [str(LISTED[at % len(LISTED)]) for at in range(2 * WORKERS)]
WRITTEN = ",".join(map(str, LISTED))
NOT_THERE = MOST - 1


def allowed(daemon: Daemon) -> list[str]:
    """Where each of the daemon's threads may run."""
    assert daemon.process is not None
    tasks = Path(f"/proc/{daemon.process.pid}/task").glob("*/status")
    return [re.findall(r"^Cpus_allowed_list:\s+(\S+)", path.read_text(), re.MULTILINE)[0] for path in tasks]


def check(daemon: Daemon, expected: list[str]) -> None:
    """Workers are there, by status and by the kernel; all other threads are where a new program is."""
    assert [queue["cpus"] for queue in daemon.ask("status")["queues"]] == expected
    others = allowed(daemon)
    for each in expected:
        others.remove(each)
    assert len(others) >= 3 and set(others) == {as_text(os.sched_getaffinity(0))}


def talk(hosts: Hosts, port: int) -> None:
    with ExitStack() as stack:
        for number in range(FLOWS):
            client = stack.enter_context(connected(hosts.a, socket.AF_INET, hosts.b, port))
            assert exchange(client, [b"%d" % number]) == [b"%d" % number]


def test_workers_keep_to_theirs_and_all_other_threads_to_none(hosts: Hosts) -> None:
    with (
        running(hosts.a, client_side([TAGGED]), f'workers = {WORKERS}\nworker_cpus = "{WRITTEN}"') as a,
        running(hosts.b, server_side([TAGGED, CLOSED])) as b,
        echo(hosts.b, 7001, 7002),
    ):
        check(a, ROUND[:WORKERS])
        talk(hosts, 7001)
        a.reload(client_side([TAGGED, CLOSED]))
        check(a, ROUND)
        talk(hosts, 7002)
        a.restart()
        check(a, ROUND)
        talk(hosts, 7001)
        talk(hosts, 7002)
        flows = sum(queue["live_flows"] for queue in a.ask("status")["queues"])
        assert flows == 2 * FLOWS
        assert_balanced(a.stats())
        assert b.counters("tagged", "tag")["stripped"] == 2 * FLOWS
        check(b, [as_text(os.sched_getaffinity(0))] * 2)


def rewrite(daemon: Daemon, processors: str) -> None:
    path = daemon.directory / "layer45.toml"
    path.write_text(re.sub(r'worker_cpus = ".*"', f'worker_cpus = "{processors}"', path.read_text()))


def test_another_list_takes_a_restart_and_a_wrong_one_changes_nothing(hosts: Hosts) -> None:
    first = str(LISTED[0])
    with running(hosts.a, client_side([TAGGED]), f'workers = {WORKERS}\nworker_cpus = "{WRITTEN}"') as a:
        a.expected = ("reload failed; nothing changed", "the successor did not take over")
        for words, processors, reason in (
            ("reload", first * (len(LISTED) > 1), f"it was '{WRITTEN}' at the start; restart to change it"),
            ("restart", f"{first},{NOT_THERE}", f"may use, {as_text(usable())}; got {NOT_THERE} too"),
            ("restart", "0-", 'such as "0-3,6", got "0-"'),
        ):
            rewrite(a, processors)
            refused = hosts.a.run(a.command(words), check=False)
            assert refused.returncode == 1 and "Traceback" not in refused.stderr
            assert re.search(rf"{a.directory}/layer45.toml(:\d+)?: worker_cpus: .*", refused.stderr)
            assert reason in refused.stderr
            rewrite(a, WRITTEN)  # commands read it, too
            check(a, ROUND[:WORKERS])
        rewrite(a, first)
        a.restart()
        check(a, [first] * WORKERS)


def test_a_daemon_that_cannot_have_them_does_not_start(hosts: Hosts, tmp_path: Path) -> None:
    with live_daemon(hosts.a, tmp_path / "a") as daemon:
        before = daemon.rules()
        daemon.settings(worker_cpus=f"{LISTED[0]},{NOT_THERE}")
        daemon.layer45("check")  # which asks no kernel
        told = daemon.layer45("run", status=1).splitlines()
        assert told[-1].endswith(
            f"{daemon.directory}/layer45.toml: worker_cpus: expected processors that are online and that "
            f"the daemon may use, {as_text(usable())}; got {NOT_THERE} too"
        )
        assert daemon.rules() == before


def test_workers_may_have_processors_that_the_daemon_itself_keeps_off(hosts: Hosts, tmp_path: Path) -> None:
    """As with CPUAffinity= in its unit, or processors that `isolcpus` keeps from all who do not ask."""
    off, on = str(LISTED[0]), str(LISTED[-1])
    with live_daemon(hosts.a, tmp_path / "a") as daemon:
        daemon.settings(worker_cpus=off)
        daemon.wrapper = ["taskset", "--cpu-list", on]
        daemon.start()
        (queue,) = daemon.json("status")["queues"]
        assert queue["cpus"] == off
        assert daemon.process is not None
        assert os.sched_getaffinity(daemon.process.pid) == {int(on)}
        assert daemon.end() == 0
