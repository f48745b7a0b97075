"""Does a daemon stay as it is: while traffic of every kind passes, and it is reloaded, told and replaced?

    python -m perf.soak [--seconds 60 | --hours N] [--change-every 4] [--restart-every 20] [--workers 1]

Needs root and iperf3. A daemon at both ends, six policies (soak_load.py): tag with scramble, fec, scrambled
TCP, tags in TCP streams, one that drops, one that only looks. Meanwhile both are reloaded with other
parameters and another policy more or less, the looking policy is deactivated and activated, and host b's
daemon hands over to a new one; host a's stays the same process, so that what grows by and by shows. Sampled
all the time and judged in the end, by the rules of soak_judge.py: memory, descriptors and threads flat,
counters balance, nothing left behind, nothing dropped by the kernel, no wrong checksum, all arrived that no
module was to drop. Each violation is one line, and the exit status is 1.
"""

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from layer45.control_client import ask
from layer45.control_messages import ChangeState, Reload
from layer45.errors import Layer45Error
from perf import lab, record
from perf.soak_judge import Delivery, Sample, judge
from perf.soak_load import SERVICES, Load, loads
from perf.soak_samples import Watch, sample
from tests.netns.daemons import FAULTS, Daemon, Service, client_side, running, server_side
from tests.netns.topology import Host, Hosts, two_hosts

UDP_IDLE_S, TCP_IDLE_S = 2, 6
SETTINGS = f"udp_idle_s = {UDP_IDLE_S}\ntcp_idle_s = {TCP_IDLE_S}\nmax_flows = 8192\n"
CONNTRACK_S = {"nf_conntrack_udp_timeout": 5, "nf_conntrack_tcp_timeout_time_wait": 5}
SETTLE_S = TCP_IDLE_S + 10
MOST_SAMPLES = 600
SPARE = Service("spare", 7999, '{ module = "duplicate" }')
OTHER_FEC = Service("fec", SERVICES["fec"].port, '{ module = "fec", deadline_ms = 12 }')
FAULTLESS = [name for name in FAULTS if name != "no_class"]  # those on their way when a policy is deactivated
KEPT = ("seconds", "pid", "memory_kb", "resident_kb", "descriptors", "threads", "waiting", "dropped", "live")


@dataclass(frozen=True)
class Outcome:
    """All that was seen. violations: one line each; none is what should be."""

    seconds: float
    series: Mapping[str, Sequence[Sample]]
    deliveries: Mapping[str, Delivery]
    changes: Mapping[str, int]
    unread: int
    violations: Sequence[str]


class Changes:
    """What operators do, by a thread: a change each so often, and a new daemon in host b."""

    def __init__(
        self, a: Daemon, b: Daemon, traffic: Sequence[Load], every_s: float, restart_s: float
    ) -> None:
        self.done = {"reloads": 0, "states changed": 0, "restarts": 0}
        self.errors: list[str] = []
        self._a, self._b, self._tcp = a, b, [load for load in traffic if load.is_tcp]
        self._every_s, self._restart_s = every_s, restart_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="changes")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """No further change."""
        self._ended.set()
        self._thread.join()

    def undo(self) -> None:
        """Both have their first configuration again."""
        self.end()
        if not self.errors:
            self._reload(other=False)

    def _run(self) -> None:
        restarted = time.monotonic()
        try:
            while not self._ended.wait(self._every_s):
                turn = self.done["reloads"]
                self._reload(other=turn % 2 == 0)
                self._look("deactivate" if turn % 4 < 2 else "activate")
                if time.monotonic() - restarted >= self._restart_s:
                    self._restart()
                    restarted = time.monotonic()
        except Exception as error:
            self.errors.append(f"changes: {type(error).__name__}: {error}")

    def _reload(self, other: bool) -> None:
        chosen = [*SERVICES.values(), SPARE] if other else list(SERVICES.values())
        chosen = [OTHER_FEC if other and each.name == "fec" else each for each in chosen]
        self._a.configure(client_side(chosen))
        self._b.configure(server_side(chosen))
        for daemon in (self._a, self._b):
            ask(daemon.socket, Reload(), daemon.directory)
        self.done["reloads"] += 1

    def _look(self, how: Any) -> None:
        """A reload has made it active."""
        for daemon in (self._a, self._b):
            ask(daemon.socket, ChangeState("looked", how), daemon.directory)
        self.done["states changed"] += 1

    def _restart(self) -> None:
        with contextlib.ExitStack() as stack:
            for load in self._tcp:
                stack.enter_context(load.gate)
            time.sleep(1)  # what the programs have left to say to each other
            self._b.restart()
        self.done["restarts"] += 1


def settled(daemons: dict[str, Daemon], first: Mapping[str, Sample]) -> None:
    """Waits until all flows are forgotten, or ought to be."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        now = {name: sample(daemon, 0) for name, daemon in daemons.items()}
        if all(now[name].live == first[name].live and not now[name].waiting for name in now):
            return
        time.sleep(0.2)


def unread(host: Host) -> int:
    """Datagrams for which a receiver of the host had no room."""
    rows = [line.split() for line in host.run(["cat", "/proc/net/snmp"]).stdout.splitlines()]
    names, values = (row for row in rows if row[0] == "Udp:")
    return int(values[names.index("RcvbufErrors")])


def run(seconds: float, change_every_s: float, restart_every_s: float, workers: int = 1) -> Outcome:
    """The whole of it. Raises AssertionError when a daemon does not start, or does not end well."""
    services, settings = list(SERVICES.values()), f"{SETTINGS}workers = {workers}\n"
    with two_hosts() as hosts:
        for host in hosts:
            host.run(["sysctl", "-q", *(f"-w net.netfilter.{key}={s}" for key, s in CONNTRACK_S.items())])
        with (
            running(hosts.a, client_side(services), settings) as a,
            running(hosts.b, server_side(services), settings) as b,
            loads(hosts) as traffic,
        ):
            return soak(hosts, a, b, traffic, (seconds, change_every_s, restart_every_s))


def soak(
    hosts: Hosts, a: Daemon, b: Daemon, traffic: Sequence[Load], times_s: tuple[float, float, float]
) -> Outcome:
    """For so long, with a change and a restart each so often."""
    seconds, change_every_s, restart_every_s = times_s
    daemons = {"a": a, "b": b}
    watch = Watch(daemons, max(0.5, seconds / MOST_SAMPLES))
    first = {name: series[0] for name, series in watch.series.items()}
    changes = Changes(a, b, traffic, change_every_s, restart_every_s)
    with contextlib.ExitStack() as stack:
        stack.callback(watch.end)
        stack.callback(_end, traffic)
        stack.callback(changes.end)
        _pass(seconds, traffic, changes)
        changes.undo()
    settled(daemons, first)
    watch.look()
    deliveries = {load.name: load.total for load in traffic}
    sums = {host.name[-1]: sum(host.checksum_errors().values()) for host in hosts}
    left = sum(map(unread, hosts))
    errors = [*changes.errors, *(line for load in traffic for line in load.errors)]
    return Outcome(
        seconds=watch.series["a"][-1].seconds,
        series=watch.series,
        deliveries=deliveries,
        changes=changes.done,
        unread=left,
        violations=[*errors, *judge(watch.series, deliveries, left, sums, FAULTLESS)],
    )


def _pass(seconds: float, traffic: Sequence[Load], changes: Changes) -> None:
    """Until the time is over, or something has gone wrong."""
    for load in traffic:
        load.start()
    changes.start()
    until = time.monotonic() + seconds
    while time.monotonic() < until and not changes.errors and not any(load.errors for load in traffic):
        time.sleep(0.2)


def _end(traffic: Sequence[Load]) -> None:
    for load in traffic:
        load.stop()
    for load in traffic:
        load.join()


def written(found: Outcome) -> dict[str, Any]:
    """For the file of results: samples without the engine's counters, but for the last."""
    return {
        "seconds": found.seconds,
        "violations": found.violations,
        "changes": found.changes,
        "deliveries": {name: asdict(each) for name, each in found.deliveries.items()},
        "left_unread_by_receivers": found.unread,
        "engine": {host: samples[-1].engine for host, samples in found.series.items()},
        "samples": {
            host: {key: [getattr(each, key) for each in samples] for key in KEPT}
            for host, samples in found.series.items()
        },
    }


def show(found: Outcome) -> None:
    """A few lines."""
    for host, samples in found.series.items():
        memory = [each.memory_kb for each in samples]
        lives = len({each.pid for each in samples})
        print(
            f"host {host}: {len(samples)} samples of {lives} processes, {min(memory)} to {max(memory)} kB, "
            f"{samples[-1].engine['received']} packets in the last"
        )
    for name, each in found.deliveries.items():
        print(f"{name}: {each.sent} sent, {each.due} due, {each.arrived} arrived")
    done = ", ".join(f"{count} {name}" for name, count in found.changes.items())
    print(f"{done}; {found.unread} datagrams left unread by their receivers")
    for line in found.violations:
        print(f"perf: soak: {line}", file=sys.stderr)
    verdict = f"{len(found.violations)} violations" if found.violations else "held"
    print(f"soak of {found.seconds:.0f} s: {verdict}")


def arguments() -> argparse.Namespace:
    """The command line; seconds has the length."""
    parser = argparse.ArgumentParser(prog="perf.soak", description=(__doc__ or "").splitlines()[0])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, default=60)
    length.add_argument("--hours", type=float)
    parser.add_argument("--change-every", type=float, default=4, metavar="SECONDS")
    parser.add_argument("--restart-every", type=float, default=20, metavar="SECONDS")
    parser.add_argument("--workers", type=int, default=1, help="of each queue group")
    options = parser.parse_args()
    if options.hours is not None:
        options.seconds = options.hours * 3600
    if options.seconds <= 0:
        parser.error("expected a time above 0")
    return options


def main() -> int:
    """Soak, print and record. The exit status."""
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing stays behind
    try:
        found = run(options.seconds, options.change_every, options.restart_every, options.workers)
    except (AssertionError, Layer45Error, lab.BenchmarkError) as error:
        print(f"perf: soak: {error}", file=sys.stderr)
        return 1
    show(found)
    record.write("soak", "whether daemons stay as they are while traffic and changes pass", written(found))
    memory = {
        f"host {host}": [(each.seconds, each.memory_kb / 1024) for each in samples]
        for host, samples in found.series.items()
    }
    record.plot_over_time("soak", "Memory of both daemons under load and change", "MB (PSS)", memory)
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main())
