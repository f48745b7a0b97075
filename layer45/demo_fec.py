r"""The demo's second scene: a link that loses 5 % of all datagrams, and a program that hardly notices.

        host a                                                 host b
    iperf3 under `layer45 exec demo` -> engine -\          /-> 5 % lost -> engine -> iperf3 server, port 5201
                                                 -- veth --
    iperf3, plain ------------------------------/          \-> 5 % lost -----------> iperf3 server, port 5202

Both run at the same time. Then two programs of our own take their places, to see how long datagrams are on
their way (demo_probe.py). Host b loses datagrams before its queue, and counts them (demo_link.py); a loss
that is the link's must be made good by a repair, or be one that the code's theory allows.
"""

import os
import time
from dataclasses import dataclass
from statistics import quantiles

from rich.console import Console
from rich.table import Table

from layer45.demo_hosts import Host, Stats, agree, checksum_errors, full_sockets, stats, under_policy, within
from layer45.demo_iperf import BITS_PER_S, CUSTOMIZED, DATAGRAM_BYTES, PLAIN, PORTS, Flow, both_flows, servers
from layer45.demo_link import LOSS, Link, links, make_lossy
from layer45.demo_probe import COUNT, INTERVAL_NS, Delays, probe
from layer45.demo_replay import Point

SECONDS = 5
K, M = 10, 3
CHAIN = f'[ {{ module = "fec", source_symbols = {K}, repair_symbols = {M} }} ]'
SETTLED_S = 0.5  # by then every block is whole or given up
CERTAINTY = 0.999
MOST_MISSED = BITS_PER_S // (8 * DATAGRAM_BYTES) // 10  # of the last tenth of a second
LOSS_NEAR = 0.01  # a link that loses more or less than LOSS by this is broken: some four sigma
NEVER = (
    "unprotected", "not_sent", "not_held", "no_memory", "unmarked", "invalid", "corrupt", "stale", "restarts",
    "other_parameters", "no_room",
)  # fmt: skip

Counters = dict[str, int]


@dataclass(frozen=True)
class Reading:
    """Counters of the sender's module, of the receiver's, and of the link, by port."""

    a: Counters
    b: Counters
    link: dict[int, Link]

    def since(self, before: "Reading") -> "Reading":
        link = {port: self.link[port] - before.link[port] for port in PORTS}
        return Reading(_less(self.a, before.a), _less(self.b, before.b), link)

    @property
    def lost(self) -> int:
        """Datagrams that neither arrived nor were made anew."""
        return self.a["sources"] - self.b["arrived"] - self.b["recovered"]

    @property
    def point(self) -> Point:
        return Point(K, M, self.link[CUSTOMIZED].loss, self.a["sources"], self.lost)


def _less(after: Counters, before: Counters) -> Counters:
    return {name: after[name] - before[name] for name in after}


@dataclass(frozen=True)
class Seen:
    """All that was observed. iperf, probe: counted while they ran; a, b: the hosts' engines at the end."""

    applications: dict[int, Flow]
    iperf: Reading
    delays: dict[int, Delays]
    probe: Reading
    a: Stats
    b: Stats
    checksum_errors: int
    full_sockets: int  # of iperf3


def play(console: Console) -> Point:
    """What remained of the link's loss. Raises DemoError for what is not as it should be."""
    console.print(f"demo: a link that loses {LOSS:.0%}, two iperf3 at the same time, {SECONDS} seconds …")
    seen = observe()
    judge(seen)
    report(seen, console)
    point = seen.iperf.point
    console.print(f"demo: of a loss of {point.loss:.2%} remained {point.residual:.2%}, as theory has it\n")
    return point


def observe() -> Seen:
    with under_policy("Lost datagrams are made anew", CHAIN, CUSTOMIZED) as (a, b, folder):
        make_lossy(b)
        with servers(b):
            begun = reading(a, b)
            applications = both_flows(a, SECONDS)
            time.sleep(SETTLED_S)
            between, full = reading(a, b), full_sockets(b)
        delays = probe(a, b, folder)
        ended = reading(a, b)
        errors = checksum_errors(a) + checksum_errors(b)
        iperf, probed = between.since(begun), ended.since(between)
        return Seen(applications, iperf, delays, probed, stats(a), stats(b), errors, full)


def reading(a: Host, b: Host) -> Reading:
    return Reading(stats(a).module("fec"), stats(b).module("fec"), links(b))


# --- judgement ----------------------------------------------------------------------------------------------


def judge(seen: Seen) -> None:
    """Raises DemoError for the first thing that is not as it should be."""
    agree(
        [
            ("checksum errors", seen.checksum_errors, 0),
            ("packets answered by the engine of host a", seen.a.answered, seen.a.engine("received")),
            ("packets answered by the engine of host b", seen.b.answered, seen.b.engine("received")),
        ]
    )
    for what, counted in (("iperf3", seen.iperf), ("probe", seen.probe)):
        judge_counters(what, counted)
    judge_applications(seen)
    judge_delays(seen)


def judge_counters(what: str, counted: Reading) -> None:
    """What left is what the link had, and what the link let pass is what arrived."""
    for port in PORTS:
        within(f"{what}: the link's loss", counted.link[port].loss, LOSS - LOSS_NEAR, LOSS + LOSS_NEAR)
    link = counted.link[CUSTOMIZED]
    arrived = sum(counted.b[name] for name in ("arrived", "duplicate", "repairs_arrived"))
    agree(
        [
            (f"{what}: datagrams on the link", link.packets, counted.a["sources"] + counted.a["repairs"]),
            (f"{what}: datagrams that arrived", arrived, link.packets - link.lost),
            *((f"{what}: {name}", counted.a[name] + counted.b[name], 0) for name in NEVER),
        ]
    )
    # The receiver guesses the size of a block whose repairs are all lost, and may give one up too early.
    guessed = counted.lost - counted.b["unrecovered"]
    within(f"{what}: lost, but not unrecovered", guessed, -2 * K - counted.b["late"], 2 * K)
    least, most = counted.point.bounds(CERTAINTY)
    within(f"{what}: datagrams lost behind the code", counted.lost, least, most + K)


def judge_applications(seen: Seen) -> None:
    """iperf3 lost what the link took and no repair gave back, and what came too late for it at the end."""
    plain, under = (seen.applications[port] for port in (PLAIN, CUSTOMIZED))
    greetings = seen.iperf.link[PLAIN].packets - plain.sent
    within("greetings of an iperf3", greetings, 1, 3)
    agree([("datagrams given to the module", seen.iperf.a["sources"], under.sent + greetings)])
    for what, flow, lost in (
        ("plain", plain, seen.iperf.link[PLAIN].lost),
        ("customized", under, seen.iperf.lost),
    ):
        unseen = flow.lost + flow.missed - lost
        within(f"datagrams that only the {what} iperf3 misses", unseen, 0, MOST_MISSED + seen.full_sockets)


def judge_delays(seen: Seen) -> None:
    """The probe's programs had each datagram that the counters say they had."""
    under, plain = seen.delays[CUSTOMIZED], seen.delays[PLAIN]
    link = seen.probe.link[PLAIN]
    agree(
        [
            ("the probe's datagrams", seen.probe.a["sources"], COUNT),
            ("the probe's datagrams beside the policy", link.packets, COUNT),
            ("the probe's datagrams that arrived", len(under.arrived), seen.probe.b["arrived"]),
            ("the probe's datagrams made anew", len(under.recovered), seen.probe.b["recovered"]),
            ("the probe's datagrams that arrived beside", len(plain.arrived), COUNT - link.lost),
            ("the probe's datagrams made anew beside", len(plain.recovered), 0),
        ]
    )


# --- report -------------------------------------------------------------------------------------------------


def report(seen: Seen, console: Console) -> None:
    """What happened, for people."""
    console.print(f"\npolicy demo, chain = {CHAIN}", markup=False, style="bold", soft_wrap=True)
    console.print(losses(seen))
    console.print(latencies(seen))
    pace = f"two programs of ours, a datagram each {INTERVAL_NS / 1e6:.2f} ms"
    load = f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    console.print(f"median / 99th percentile; {pace}; the machine's load: {load}", soft_wrap=True)
    full, short = (seen.iperf.a[name] for name in ("blocks_full", "blocks_short"))
    decode_us = seen.iperf.b["decode_ns"] / 1e3 / max(1, seen.iperf.b["recovered"])
    console.print(f"iperf3's blocks: {full} full, {short} closed by their deadline")
    console.print(f"decoding: {decode_us:.1f} µs for a datagram made anew")
    if seen.full_sockets:
        console.print(f"this machine is busy: {seen.full_sockets} datagrams came while iperf3 had no room")
    console.print(f"engine of host a: {seen.a}\nengine of host b: {seen.b}", soft_wrap=True)
    console.print(f"checksum errors: {seen.checksum_errors}\n")


def losses(seen: Seen) -> Table:
    """iperf3's, and what was done for them."""
    flows = [seen.applications[port] for port in PORTS]
    under, plain = (seen.iperf.link[port] for port in PORTS)
    point = seen.iperf.point
    most = point.bounds(CERTAINTY)[1] / point.sources
    table = Table(f"two iperf3, {BITS_PER_S / 1e6:g} Mbit/s each", "under the policy", "beside it")
    table.add_row("datagrams sent", *(str(flow.sent) for flow in flows))
    table.add_row("on the link, with the greeting", str(under.packets), str(plain.packets))
    table.add_row("lost there", *(f"{link.lost}, {link.loss:.2%}" for link in (under, plain)))
    table.add_row("made anew by the receiver", str(seen.iperf.b["recovered"]), "")
    left = (f"{flow.lost}, {flow.lost / flow.sent:.2%}" for flow in flows)
    table.add_row("lost to the application", *left, style="bold green")
    table.add_row("… in theory", f"{point.theory:.2%}, at most {most:.2%}", f"{plain.loss:.2%}")
    table.add_row("MB on the link, IP", *(f"{link.bytes / 1e6:.2f}" for link in (under, plain)))
    more = (under.bytes / seen.iperf.a["sources"]) / (plain.bytes / plain.packets) - 1
    table.add_row("… more for a datagram sent", f"{more:+.1%}", "")
    return table


def latencies(seen: Seen) -> Table:
    """The probe's."""
    table = Table("ms from send() to recv()", "under the policy", "beside it")
    under, plain = (seen.delays[port] for port in PORTS)
    ways = _percentiles(under.arrived), _percentiles(plain.arrived)
    added = (f"{mine - others:+.2f}" for mine, others in zip(*ways, strict=True))
    table.add_row("datagrams that arrived", *map(_shown, ways))
    table.add_row("… more than beside it", " / ".join(added), "")
    table.add_row("lost ones, made anew", _shown(_percentiles(under.recovered)), "never")
    return table


def _percentiles(delays_ns: list[int]) -> tuple[float, float]:
    """The median and the 99th, in ms."""
    cuts = quantiles(delays_ns, n=100)
    return cuts[49] / 1e6, cuts[98] / 1e6


def _shown(percentiles: tuple[float, float]) -> str:
    return " / ".join(f"{each:.2f}" for each in percentiles)
