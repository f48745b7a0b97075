"""What do queues at both hosts add to a round trip, on an idle path and beside a load?

    python -m perf.latency [--rounds 7] [--round-trips 20000] [--load-rate 20000]
                           [--placement anywhere]
                           [--beside idle "load in the policy" "load of others"] [--only CASE…]

Needs root. A datagram of 200 bytes goes from host a to b and back, one at a time; an engine at each host has
both directions on one queue, so a round trip passes four times. A load is a flow of as many bytes from
another socket of a, in bursts of BURST, to a socket of b that nobody reads: in the policy, through the same
two queues, or not. Each host has a processor of its own (processors.py), if it is not said otherwise.

The figure is the median round trip of an empty chain against the bare C loop's, in whole and as what each
adds to the direct one, within a round. A sample counts only if every datagram was answered, every pass of a
round trip went through a queue (and, without a load in the policy, nothing else), and the load reached b at
its rate.
"""

import argparse
import contextlib
import json
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from perf import ends, lab, processors, record, rounds, serving
from tests.netns.topology import Host, Hosts, two_hosts

ECHO_PORT, LOAD_PORT, OTHERS_PORT = 9001, 9000, 9100
PAYLOAD_BYTES, IP_BYTES = 200, 228
WARM_ROUND_TRIPS = 500
BURST, LONGEST_LOAD_S = 10, 300
SO_MEMINFO, MEMINFO = 55, struct.Struct("9I")  # the last: datagrams dropped for want of room
PERCENTILES = ("p50", "p90", "p99", "p999")
COST = "engine_cpu_us"  # a packet of round trips or load

DIRECT, LOOP, EMPTY = "direct", "C loop", "empty chain"
CASES: dict[str, ends.Engine] = {
    DIRECT: ends.nobody,
    LOOP: ends.c_loop(),
    "Python callback": ends.python_callback(),
    EMPTY: ends.ours(serving.EMPTY),
    f"{EMPTY}, busy_poll_us = 50": ends.ours(serving.EMPTY, busy_poll_us=50),
    f"{EMPTY}, coalesce_us = 300": ends.ours(serving.EMPTY, coalesce_us=300),
    "tag": ends.ours(f"[{serving.TAG}]"),
}
BESIDE = {"idle": 0, "load in the policy": LOAD_PORT, "load of others": OTHERS_PORT}
TARGET = 1.05  # of what the C loop adds


@dataclass(frozen=True)
class Options:
    """What all samples have in common. enough: of a load's rate, for a sample to count."""

    round_trips: int
    load_rate: int
    placement: processors.Placement
    enough: float = 0.9


@contextlib.contextmanager
def echo(host: Host, placement: processors.Placement = processors.ANYWHERE) -> Iterator[None]:
    """Answers on ECHO_PORT."""
    words = [str(lab.compiled("pingpong")), "echo", str(ECHO_PORT)]
    process = host.popen(placement.command(host, words))
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def load(hosts: Hosts, port: int, options: Options) -> Iterator[Callable[[], int]]:
    """A flow to a port of b; none to port 0. Gives how many datagrams have come, but for the very first."""
    if port == 0:
        yield lambda: 0
        return
    rate = options.load_rate
    words = map(str, (hosts.b.ipv4, port, rate * LONGEST_LOAD_S, IP_BYTES, BURST, rate))
    command = options.placement.command(hosts.a, [str(lab.compiled("sender")), *words])
    with hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVBUF, 1
        )  # full at once: from then on it drops, and counts
        sink.bind((hosts.b.ipv4, port))
        sender = hosts.a.popen(command, stdout=subprocess.DEVNULL)
        try:
            yield lambda: int(
                MEMINFO.unpack(sink.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO.size))[-1]
            )
        finally:
            sender.kill()
            sender.wait()


def ask(hosts: Hosts, count: int, placement: processors.Placement = processors.ANYWHERE) -> dict[str, Any]:
    """So many round trips: percentiles in ns, and how many found no answer."""
    words = ["ask", hosts.b.ipv4, *map(str, (ECHO_PORT, count, PAYLOAD_BYTES))]
    command = placement.command(hosts.a, [str(lab.compiled("pingpong")), *words])
    done = hosts.a.run(command, check=False, timeout=LONGEST_LOAD_S)
    if done.returncode:
        raise lab.BenchmarkError(done.stderr.strip())
    return dict(json.loads(done.stdout))


@dataclass(frozen=True)
class Asked:
    """What came of a series of round trips, and what else passed meanwhile. queued: by host, a's first."""

    answer: dict[str, Any]
    queued: list[int]
    load: int
    seconds: float


def sample(hosts: Hosts, engine: ends.Engine, port: int, options: Options) -> rounds.Sample:
    """One series of round trips, in microseconds."""
    traffic = ends.Traffic(("udp",), (ECHO_PORT, LOAD_PORT))
    wrong = [host.checksum_errors() for host in hosts]
    with echo(hosts.b, options.placement), engine(hosts, traffic) as both, load(hosts, port, options) as came:
        ends.place(both, options.placement)
        ask(hosts, WARM_ROUND_TRIPS, options.placement)
        spent = ends.cpu_ns(both)
        asked = measured(hosts, came, options)
        spent = ends.cpu_ns(both) - spent
        check(asked, bool(both), port, options)
    if [host.checksum_errors() for host in hosts] != wrong:
        raise lab.BenchmarkError("packets with a wrong checksum arrived")
    figures = {f"{name}_us": asked.answer[f"{name}_ns"] / 1000 for name in PERCENTILES}
    if both:
        figures[COST] = spent / sum(asked.queued) / 1000
    return figures | {"load_per_s": asked.load / asked.seconds}


def measured(hosts: Hosts, came: Callable[[], int], options: Options) -> Asked:
    """Round trips between two looks at the counters."""
    before, load_before = [lab.queue_counts(host).queued for host in hosts], came()
    began = time.monotonic()
    answer = ask(hosts, options.round_trips, options.placement)
    seconds, loaded = time.monotonic() - began, came() - load_before
    after = [lab.queue_counts(host).queued for host in hosts]
    return Asked(answer, [late - early for late, early in zip(after, before, strict=True)], loaded, seconds)


def check(asked: Asked, has_engine: bool, port: int, options: Options) -> None:
    """Raises BenchmarkError unless all went as it should."""
    if asked.answer["lost"]:
        raise lab.BenchmarkError(f"{asked.answer['lost']} round trips found no answer")
    least = 2 * options.round_trips if has_engine else 0
    beside = has_engine and port == LOAD_PORT
    if any(each < least + beside * asked.load if beside else each != least for each in asked.queued):
        raise lab.BenchmarkError(
            f"{options.round_trips} round trips, {asked.load} beside: {asked.queued} queued"
        )
    if port and asked.load < options.enough * options.load_rate * asked.seconds:
        raise lab.BenchmarkError(f"of {options.load_rate} a second {asked.load / asked.seconds:.0f} came")


def measure(cases: list[str], beside: list[str], count: int, options: Options) -> rounds.Rounds:
    """So many rounds, grouped by what goes on beside them."""
    with two_hosts() as hosts:
        return rounds.measure(
            dict.fromkeys(beside, cases),
            count,
            lambda group, case: sample(hosts, CASES[case], BESIDE[group], options),
        )


def ratios(found: rounds.Rounds, group: str) -> dict[str, list[float]]:
    """The empty chain's median round trip to the C loop's, round by round: in whole, and what it adds."""
    whole = found.ratios(group, EMPTY, LOOP, "p50_us")
    medians = found.together(group, (DIRECT, LOOP, EMPTY), "p50_us")
    added = [(ours - direct) / (loop - direct) for direct, loop, ours in medians if loop > direct]
    return {"in whole": whole, "added": added}


def compared(found: rounds.Rounds) -> dict[str, dict[str, Any]]:
    """Those ratios, summed up; what is added has a target."""
    listed: dict[str, dict[str, Any]] = {}
    for group in found.samples:
        for name, each in ratios(found, group).items():
            if each:
                met = {"target": TARGET, "met": statistics.median(each) <= TARGET} if name == "added" else {}
                listed[f"{group}: p50 {name}, {EMPTY} / {LOOP}"] = {**record.summary(each), **met}
    return listed


def show(found: rounds.Rounds, listed: dict[str, dict[str, Any]]) -> None:
    """On the terminal."""
    units = {f"{name}_us": f"us, {name}" for name in PERCENTILES} | {COST: "us of engine CPU a packet"}
    for group in found.samples:
        print(f"-- {group}")
        for figure, unit in units.items():
            if series := found.series(group, figure):
                record.table(series, unit, LOOP)
    for name, each in listed.items():
        median = round(each["median"], 3)
        if "target" in each:
            record.verdict(name, median, each["target"], each["met"])
        else:
            print(f"{name}: {median}")


def draw(found: rounds.Rounds) -> None:
    """A picture of medians, and one of 99th percentiles."""
    for name, figure in (("latency", "p50"), ("latency_p99", "p99")):
        series = {
            f"{group}: {case}": values
            for group in found.samples
            for case, values in found.series(group, f"{figure}_us").items()
        }
        if series:
            record.plot(name, f"Round trip of {PAYLOAD_BYTES} bytes, {figure}", "microseconds", series)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="perf.latency", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--round-trips", type=int, default=20_000, help="of a sample")
    parser.add_argument("--load-rate", type=int, default=20_000, help="datagrams a second")
    processors.add_option(parser, "apart")
    shown = "; ".join(BESIDE)
    parser.add_argument(
        "--beside", nargs="+", choices=BESIDE, default=list(BESIDE), metavar="LOAD", help=shown
    )
    shown = "; ".join(CASES)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=shown)
    return parser.parse_args()


def main() -> None:
    """Measure, print and record."""
    asked = arguments()
    placement = processors.PLACEMENTS[asked.placement]()
    options = Options(asked.round_trips, asked.load_rate, placement)
    found = measure(asked.only, asked.beside, asked.rounds, options)
    listed = compared(found)
    show(found, listed)
    record.write(
        "latency",
        "round trips of 200 bytes through queues at both hosts, in microseconds",
        {
            "options": {**vars(asked), "processors": placement.processors},
            "ratios": listed,
            "figures": found.summaries(),
            "samples": found.samples,
            "not_counted": found.not_counted,
        },
    )
    draw(found)


if __name__ == "__main__":
    main()
