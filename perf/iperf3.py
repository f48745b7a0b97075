"""What does an unmodified iperf3 reach through a queue at both ends, and what CPU does a gigabyte cost?

    python -m perf.iperf3 [--rounds 5] [--seconds 3] [--streams 1 8] [--directions forward reverse]
                          [--congestion bbr cubic] [--udp-rate 100M] [--placement apart] [--only CASE…]

Needs root. The client is at host a, the server at b, an engine at each, and all share the processors, or, if
they are placed apart, those of a host have one of their own (processors.py). TCP goes as fast as it can, UDP
at a rate, in datagrams that fit the MTU with a tag: what counts there is the loss and the CPU. Under the GSO
flag TCP's super-packets of up to 64 KiB go through a queue whole; without it the kernel cuts them into
segments first. NetfilterQueue cannot ask for the flag, so its callback is without. ("No GSO flag" is forced
by a policy for TCP and UDP together, or by a module in the chain that takes no super-packets.) The C loop
copies headers, as an empty chain does, or whole packets, as chains must that change them.

A share is taken within a round. A sample counts only if no checksum was wrong, and if the bytes that came to
the server's program went through the queues of both ends, by their rules, by the kernel, and by our engine's
own counters; if a chain changes packets, some must have been changed at each end; if it leaves flows to the
kernel, only a small part of their bytes may have come to it.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layer45.chain_properties import WHOLE_PACKET_BYTES
from perf import ends, lab, processors, record, rounds
from perf.processors import ANYWHERE, Placement
from perf.serving import EMPTY, SCRAMBLE, TAG
from tests.netns.topology import Host, Hosts, two_hosts

PORT = 5201
DATAGRAM_BYTES = 1400
LOOK, FIRST = '[{ module = "classify", bypass = false }]', '[{ module = "classify" }]'
INSERT = '{ module = "stream_tag", every_bytes = 1000, tag_bytes = 32 }'
CUTTING = '{ module = "drop", prefix = "hex:ffffffffffffffffffff" }'  # drops nothing, takes no super-packets
RATE, COST = "gbit_per_s", "engine_cpu_s_per_gb"


@dataclass(frozen=True)
class Case:
    """What is compared. changes: packets. leaves: the queue, when it has seen a flow's first packets."""

    engine: ends.Engine
    changes: bool = False
    leaves: bool = False


DIRECT = Case(ends.nobody)
TCP = {
    "direct": DIRECT,
    "direct, conntrack": Case(ends.conntrack),
    "C loop": Case(ends.c_loop(gso=True)),
    "C loop, whole packets": Case(ends.c_loop(WHOLE_PACKET_BYTES, gso=True)),
    "C loop, no GSO flag": Case(ends.c_loop()),
    "Python callback, no GSO flag": Case(ends.python_callback()),
    "empty chain": Case(ends.ours(EMPTY)),
    "empty chain, no GSO flag": Case(ends.ours(EMPTY, alone=False)),
    "look only": Case(ends.ours(LOOK)),
    "look only, no GSO flag": Case(ends.ours(LOOK, alone=False)),
    "look only, copies": Case(ends.ours(LOOK, path="auto")),
    "look first": Case(ends.ours(FIRST), leaves=True),
    "scramble": Case(ends.ours(f"[{SCRAMBLE}]"), changes=True),
    "scramble, no GSO flag": Case(ends.ours(f"[{SCRAMBLE}]", alone=False), changes=True),
    "stream_tag": Case(ends.ours(f"[{INSERT}]"), changes=True),
    "stream_tag, no GSO flag": Case(ends.ours(f"[{CUTTING}, {INSERT}]"), changes=True),
}
UDP = {
    "direct": DIRECT,
    "C loop": Case(ends.c_loop()),
    "Python callback": Case(ends.python_callback()),
    "empty chain": Case(ends.ours(EMPTY)),
    "empty chain, coalesce_us = 600": Case(ends.ours(EMPTY, coalesce_us=600)),
    "look only": Case(ends.ours(LOOK)),
    "look first": Case(ends.ours(FIRST), leaves=True),
    "scramble": Case(ends.ours(f"[{SCRAMBLE}]"), changes=True),
    "tag": Case(ends.ours(f"[{TAG}]"), changes=True),
}
CASES = {"tcp": TCP, "udp": UDP}
TARGETS = (  # shares of TCP's throughput
    ("look only", "direct", 0.90),
    ("look only, copies", "direct", 0.90),
    ("look first", "direct", 0.95),  # as much as direct, but for noise and conntrack
    ("scramble", "direct", 0.55),
    ("scramble", "scramble, no GSO flag", 4.0),
)


@dataclass(frozen=True)
class Load:
    """One way to call iperf3. Without a rate: TCP, as fast as it goes."""

    streams: int = 1
    reverse: bool = False
    congestion: str = ""
    rate: str = ""

    @property
    def protocol(self) -> str:
        return "udp" if self.rate else "tcp"

    @property
    def name(self) -> str:
        if self.rate:
            return f"UDP at {self.rate}"
        plural = "" if self.streams == 1 else "s"
        return f"{self.streams} stream{plural}{', reverse' if self.reverse else ''}, {self.congestion}"

    def words(self) -> list[str]:
        """Options of the client."""
        if self.rate:
            return ["-u", "-b", self.rate, "-l", str(DATAGRAM_BYTES)]
        reverse = ["-R"] if self.reverse else []
        return ["-P", str(self.streams), "-C", self.congestion, *reverse]


@contextlib.contextmanager
def server(host: Host, placement: Placement = ANYWHERE) -> Iterator[None]:
    """iperf3 -s for one test."""
    words = placement.command(host, ["iperf3", "-s", "-1", "-p", str(PORT)])
    process = host.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        lab.wait_for_ports(host, (PORT,), process)
        yield
    finally:
        process.terminate()
        process.wait()


def client(hosts: Hosts, load: Load, seconds: int, placement: Placement = ANYWHERE) -> dict[str, Any]:
    """What iperf3 reports of a run."""
    words = ["iperf3", "-c", hosts.b.ipv4, "-p", str(PORT), "-t", str(seconds), "-J", *load.words()]
    done = hosts.a.run(placement.command(hosts.a, words), check=False, timeout=seconds + 30)
    try:
        report = dict(json.loads(done.stdout))
    except ValueError:
        raise lab.BenchmarkError(f"iperf3 reported nothing: {done.stderr.strip()}") from None
    if "error" in report:
        raise lab.BenchmarkError(f"iperf3: {report['error']}")
    return dict(report["end"])


def arrived(end: dict[str, Any], load: Load) -> tuple[float, rounds.Sample]:
    """Bytes that came to the receiving program, and iperf3's own figures."""
    if load.protocol == "udp":
        total = end["sum"]
        received = total["bytes"] * (1 - total["lost_percent"] / 100)
        rate = received * 8 / total["seconds"] / 1e9
        return received, {RATE: rate, "lost_percent": total["lost_percent"]}
    total = end["sum_received"]
    retransmits = end["sum_sent"]["retransmits"]
    return total["bytes"], {RATE: total["bits_per_second"] / 1e9, "retransmits": retransmits}


def sample(
    hosts: Hosts, load: Load, case: Case, seconds: int, placement: Placement = ANYWHERE
) -> rounds.Sample:
    """One iperf3 run."""
    wrong = [host.checksum_errors() for host in hosts]
    with case.engine(hosts, ends.Traffic((load.protocol,), (PORT,))) as both, server(hosts.b, placement):
        ends.place(both, placement)
        spent = ends.cpu_ns(both)
        end = client(hosts, load, seconds, placement)
        spent = ends.cpu_ns(both) - spent
        received, figures = arrived(end, load)
        dropped = ends.check(both, received, case.changes, case.leaves)
    if [host.checksum_errors() for host in hosts] != wrong:
        raise lab.BenchmarkError("packets with a wrong checksum arrived")
    if both:
        figures |= {COST: spent / received, "queue_dropped": dropped}  # ns a byte are seconds a GB
    return figures


def measure(options: argparse.Namespace, placement: Placement) -> rounds.Rounds:
    """So many rounds, grouped by load."""
    by_name = {load.name: load for load in loads(options) if chosen(load, options.only)}
    groups = {name: chosen(load, options.only) for name, load in by_name.items()}
    with two_hosts() as hosts:

        def one(group: str, case: str) -> rounds.Sample:
            load = by_name[group]
            return sample(hosts, load, CASES[load.protocol][case], options.seconds, placement)

        return rounds.measure(groups, options.rounds, one)


def chosen(load: Load, only: list[str]) -> list[str]:
    """The load's cases, or those of them that were named."""
    return [case for case in CASES[load.protocol] if not only or case in only]


def shares(found: rounds.Rounds) -> dict[str, dict[str, Any]]:
    """Those that have a target, by load."""
    listed: dict[str, dict[str, Any]] = {}
    for group in (name for name in found.samples if not name.startswith("UDP")):
        for part, whole, least in TARGETS:
            if each := found.ratios(group, part, whole, RATE):
                met = statistics.median(each) >= least
                listed[f"{group}: {part} / {whole}"] = {**record.summary(each), "target": least, "met": met}
    return listed


def show(found: rounds.Rounds) -> None:
    """On the terminal."""
    for group in found.samples:
        print(f"-- {group}")
        units = ((RATE, "Gbit/s", "direct"), (COST, "s of engine CPU a GB, both ends", "C loop"))
        for figure, unit, baseline in units:
            if series := found.series(group, figure):
                record.table(series, unit, baseline)
        for figure in ("retransmits", "lost_percent", "queue_dropped"):
            most = {case: max(values) for case, values in found.series(group, figure).items() if any(values)}
            if most:
                print(f"{figure}, at most: " + ", ".join(f"{case} {value:g}" for case, value in most.items()))


def draw(found: rounds.Rounds, beside: str) -> None:
    """Pictures of the first load: throughput, and CPU."""
    group = next(iter(found.samples))
    for name, figure, unit in (("iperf3", RATE, "Gbit/s"), ("iperf3_cpu", COST, "engine CPU, s a GB")):
        if series := found.series(group, figure):
            record.plot(name, f"iperf3, an engine at both ends: {group}", unit, series, beside)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="perf.iperf3", description=(__doc__ or "").splitlines()[0])
    usual = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 8], help="none: no TCP")
    both = ["forward", "reverse"]
    parser.add_argument("--directions", nargs="+", choices=both, default=both, help="reverse: b sends")
    parser.add_argument("--congestion", nargs="+", default=[usual], help="default: the host's")
    parser.add_argument("--udp-rate", default="100M", help="as iperf3's -b; 0: no UDP")
    processors.add_option(parser, "anywhere")
    names = list(dict.fromkeys([*TCP, *UDP]))
    parser.add_argument("--only", nargs="+", choices=names, default=[], metavar="CASE", help="; ".join(names))
    record.add_option(parser)
    options = parser.parse_args()
    if not shutil.which("iperf3"):
        parser.error("no program iperf3")
    if not any(chosen(load, options.only) for load in loads(options)):
        parser.error("nothing to measure: no load has any of these cases")
    return options


def loads(options: argparse.Namespace) -> list[Load]:
    """All that are asked for."""
    tcp = [
        Load(streams, direction == "reverse", congestion)
        for congestion in options.congestion
        for streams in options.streams
        for direction in options.directions
    ]
    return tcp + ([Load(rate=options.udp_rate)] if options.udp_rate != "0" else [])


def main() -> None:
    """Measure, print and record."""
    options = arguments()
    placement = processors.PLACEMENTS[options.placement]()
    found = measure(options, placement)
    show(found)
    compared = shares(found)
    for name, share in compared.items():
        record.verdict(name, round(share["median"], 3), share["target"], share["met"])
    record.write(
        "iperf3",
        "iperf3 throughput through an engine at both ends, and the engines' CPU",
        {
            "options": {**vars(options), "processors": placement.processors},
            "shares": compared,
            "figures": found.summaries(),
            "samples": found.samples,
            "not_counted": found.not_counted,
        },
        options.beside,
    )
    draw(found, options.beside)


if __name__ == "__main__":
    main()
