"""What does a policy cost whose chain the kernel runs by itself, beside no policy, and beside the queue?

    python -m perf.kernel [--rounds 9] [--seconds 2] [--packets 200000]

Needs root. Three pairs of hosts stand side by side: without a daemon, and with one at each end, whose policy
has the same chain on the one path or the other. Rounds are interleaved, and a ratio is taken within a
round. A packet's cost is the CPU of sender and engine; what the receiver does is not in it.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from perf import lab, record
from perf.unmatched import ECHO_PORT, IPERF_PORT, iperf, round_trip
from tests.netns.topology import Hosts, two_hosts

PATHS = {"direct": None, "kernel": "auto", "queue": "queue"}
CHAINS = {
    "empty": "[]",
    "drop": '[{ module = "drop", length = "0-65535", invert = true }]',  # nothing
    "mark": '[{ module = "mark", dscp = "EF", direction = "egress" }]',
}
PORTS = f"[{IPERF_PORT}, {ECHO_PORT}, {lab.PORT}]"
TARGET = 0.9  # of direct, TCP through an empty chain


@dataclass(frozen=True)
class Pair:
    """Two hosts, and the daemon at the sender, if there is one."""

    hosts: Hosts
    engine: int | None
    sink: lab.HostSink


@contextlib.contextmanager
def pair(chain: str, path: str | None) -> Iterator[Pair]:
    """With servers in b."""
    with two_hosts() as hosts, tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        pids = []
        if path:
            for host, end in ((hosts.a, "remote_port"), (hosts.b, "local_port")):
                match = f"{{ {end} = {PORTS} }}"
                config = lab.write_config(Path(folder) / host.name[-1], chain, match, path)
                pids.append(stack.enter_context(lab.daemon(host, config)).pid)
        for words in (
            ["iperf3", "-s", "-p", str(IPERF_PORT)],
            [str(lab.compiled("pingpong")), "echo", str(ECHO_PORT)],
        ):
            hosts.b.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield Pair(hosts, pids[0] if pids else None, lab.HostSink(hosts))


def packet_cost(one: Pair, packets: int) -> float:
    """CPU of sender and engine for a packet of 64 bytes, in microseconds."""
    before = lab.cpu_ns(one.engine) if one.engine else 0
    one.sink.packets()
    sent = lab.send(one.hosts.a, one.hosts.b.ipv4, lab.Load(packets))
    lab.wait_until_empty(one.hosts.a)
    arrived = one.sink.packets()
    if arrived != sent["sent"]:
        raise lab.BenchmarkError(f"{sent['sent']} packets sent, {arrived} arrived")
    engine_ns = lab.cpu_ns(one.engine) - before if one.engine else 0
    return (sent["cpu_ns"] + engine_ns) / packets / 1000


def questions(options: argparse.Namespace) -> dict[str, Callable[[Pair], float]]:
    """What is measured of each pair."""
    return {
        "TCP, Gbit/s": lambda one: iperf(one.hosts, options.seconds),
        "round trip, us": lambda one: round_trip(one.hosts, 0),
        "packet, us of CPU": lambda one: packet_cost(one, options.packets),
    }


def measure(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """By "chain: question" and path."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, chain in CHAINS.items():
        with contextlib.ExitStack() as stack:
            pairs = {path: stack.enter_context(pair(chain, key)) for path, key in PATHS.items()}
            for turn in range(options.rounds):
                for question, ask in questions(options).items():
                    of = found.setdefault(f"{name}: {question}", {path: [] for path in PATHS})
                    for path in lab.turned(pairs, turn):
                        of[path].append(ask(pairs[path]))
            used_as_they_say(pairs)
    return found


def used_as_they_say(pairs: dict[str, Pair]) -> None:
    """Raises BenchmarkError if packets took another path."""
    queued = {path: lab.queue_counts(one.hosts.a).queued for path, one in pairs.items()}
    if queued["kernel"] or not queued["queue"]:
        raise lab.BenchmarkError(f"packets in a queue: {json.dumps(queued)}")


def ratio(series: dict[str, list[float]], path: str, more_is_better: bool) -> float:
    """To direct: the median of the rounds'. More is better."""
    each = zip(series[path], series["direct"], strict=True)
    return round(statistics.median(a / b if more_is_better else b / a for a, b in each), 4)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.kernel", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--packets", type=int, default=200_000)
    options = parser.parse_args()
    found = measure(options)
    ratios = {
        name: {path: ratio(series, path, "Gbit" in name) for path in ("kernel", "queue")}
        for name, series in found.items()
    }
    flat = {f"{name}, {path}": values for name, series in found.items() for path, values in series.items()}
    record.table(flat, "")
    for name, of in ratios.items():
        print(f"{name}: to direct, kernel {of['kernel']}, queue {of['queue']}")
    value = ratios["empty: TCP, Gbit/s"]["kernel"]
    record.verdict("TCP through an empty chain in the kernel, to direct", value, TARGET, value >= TARGET)
    record.write(
        "kernel",
        "what a chain in the kernel costs, beside no policy, and beside the queue",
        {"ratios": ratios, "target": TARGET, "samples": found, "options": vars(options)},
    )
    record.plot("kernel", "A chain in the kernel and in the queue", "Gbit/s, or microseconds", flat)


if __name__ == "__main__":
    main()
