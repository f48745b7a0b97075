"""What does a packet cost among very many flows, whose packets come in random order?

    python -m perf.flows [--rounds 5] [--flows 1 10 100 1000 10000 100000 1000000]
                         [--replayed 2000000] [--packets 100000] [--rate 40000]
                         [--only live untracked replayed]

Needs root, but for --only replayed. Each flow is opened before; then 64-byte packets of any flow follow. Two
chains: an empty one, and tag, which keeps state in each flow. Rounds are interleaved.

replayed   CPU of `layer45 replay` from memory to nowhere, in nanoseconds a packet: of a capture that opens
           all flows and goes on, less one that only opens them. By the capture's clock, 100,000 packets a
           second. "capture alone" is what of it reading, matching and writing take: the policy asks for
           another port.
live       CPU of the engine in microseconds a packet, beside the bare C loop's: conntrack, too, has to find
           a flow among many, and packets on their way out pay for that whoever serves the queue. As far as
           the host's conntrack takes flows: no setting of the host is changed, half of its room is left, and
           the other half stands in for any greater number.
untracked  The same with a rule that keeps these packets out of conntrack: so there is room for all, and what
           many flows cost is the engine's own.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from perf import captures, lab, packets, record, serving
from perf.replay import MEMORY, replay
from tests.netns.topology import Hosts

CHAINS = {"empty": serving.EMPTY, "tag": f"[{serving.TAG}]"}
CAPTURE = "capture alone"
OTHER_PORT = f'{{ protocol = "udp", remote_port = ["{lab.PORT + 1}"] }}'
MOST_FLOWS = 1 << 20
TARGET = 1.5
NOWHERE = Path("/dev/null")
CONNTRACK_MOST = Path("/proc/sys/net/netfilter/nf_conntrack_max")
REMOTE = str(IPv4Address(captures.FIRST_ADDRESS))
HOW = ("replayed", "live", "untracked")
Series = dict[str, dict[int, list[float]]]  # by chain or engine, then by number of flows


# --- replayed ---------------------------------------------------------------------------------------------


def replayed(levels: Sequence[int], rounds: int, count: int) -> Series:
    """Nanoseconds a packet, opening not counted."""
    found: Series = {name: {flows: [] for flows in levels} for name in (CAPTURE, *CHAINS)}
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        configs = {
            chain: lab.write_config(folder / chain, text, serving.MATCH, max_flows=MOST_FLOWS)
            for chain, text in CHAINS.items()
        }
        configs[CAPTURE] = lab.write_config(folder / "other", serving.EMPTY, OTHER_PORT, max_flows=MOST_FLOWS)
        for turn in range(rounds):
            for flows in map(int, lab.turned(map(str, levels), turn)):
                _write(folder, flows, count)
                for chain in lab.turned(configs, turn):
                    found[chain][flows].append(_steady_ns(configs[chain], folder, flows, chain != CAPTURE))
    return found


def _write(folder: Path, flows: int, count: int) -> None:
    opening = captures.in_turn(flows, flows)
    captures.write(folder / "opening.pcap", opening)
    captures.write(folder / "all.pcap", captures.after(opening, captures.at_random(flows, count)))


def _steady_ns(config: Path, folder: Path, flows: int, matched: bool) -> float:
    opening, whole = (replay(config, folder / name, NOWHERE) for name in ("opening.pcap", "all.pcap"))
    for each in (opening, whole):
        opened, evicted = (each.summary["engine"][name] for name in ("flows_opened", "flows_evicted"))
        if opened != (flows if matched else 0) or evicted:
            raise lab.BenchmarkError(f"{flows} flows: {opened} opened, {evicted} evicted")
    return (whole.cpu_s - opening.cpu_s) * 1e9 / (whole.packets - opening.packets)


# --- live -------------------------------------------------------------------------------------------------


def untracked_sink(hosts: Hosts) -> lab.Sink:
    """The same, and conntrack knows nothing of the packets."""
    chain = "chain output {\n type filter hook output priority raw\n meta l4proto udp notrack\n}"
    hosts.a.run(["nft", "-f", "-"], input=f"table ip untracked {{\n{chain}\n}}\n")
    return sink_behind_gateway(hosts)


def sink_behind_gateway(hosts: Hosts) -> lab.Sink:
    """All the flows' remote ends are behind host b: one neighbour is enough."""
    hosts.a.run(["ip", "route", "add", f"{REMOTE}/9", "via", hosts.b.ipv4])
    return lab.DeviceSink(hosts)


def conntrack_room() -> int:
    """Flows that may be open at once: half of what the host's conntrack takes."""
    return int(CONNTRACK_MOST.read_text()) // 2 if CONNTRACK_MOST.exists() else 32768


def live(
    levels: Sequence[int], rounds: int, count: int, rate: int, sink_in: Callable[[Hosts], lab.Sink]
) -> tuple[Series, list[str]]:
    """Microseconds of engine a packet, and what went wrong."""
    engines = {"C loop": serving.c_loop()} | {
        f"ours, {name}": serving.ours(text, max_flows=MOST_FLOWS) for name, text in CHAINS.items()
    }
    loads = {str(flows): lab.Load(count, rate=rate, flows=flows, order="random") for flows in levels}
    samples, spoiled = packets.measure(engines, rounds, loads, sink_in, REMOTE)
    found: Series = {}
    for flows, runs in samples.items():
        for name, costs in packets.engine_us(runs).items():
            found.setdefault(name, {})[int(flows)] = costs
    return found, spoiled


# --- results ----------------------------------------------------------------------------------------------


def medians(costs: dict[int, list[float]]) -> dict[int, float]:
    """By number of flows."""
    return {flows: statistics.median(each) for flows, each in costs.items()}


def many_to_one(costs: dict[int, list[float]]) -> float:
    """Among the most flows, against among the fewest."""
    found = medians(costs)
    return round(found[max(found)] / found[min(found)], 3)


def ratios(found: dict[str, Series]) -> dict[str, float]:
    """Of what was live: the most flows to the fewest, of each engine; and ours to the loop among the most."""
    judged: dict[str, float] = {}
    for how, series in found.items():
        if how != "replayed":
            judged |= {
                f"{how}, {name}, {max(costs)} flows": many_to_one(costs)
                for name, costs in series.items()
                if len(costs) > 1
            }
            judged |= {f"{how}, {name}": ratio for name, ratio in _to_the_loop(series).items()}
    return judged


def _to_the_loop(alive: Series) -> dict[str, float]:
    """Among the most flows: what of it all is the engine's."""
    if "C loop" not in alive:
        return {}
    most = max(alive["C loop"])
    loop_us = medians(alive["C loop"])[most]
    return {
        f"{name} / C loop, {most} flows": round(medians(costs)[most] / loop_us, 3)
        for name, costs in alive.items()
        if name != "C loop" and most in costs
    }


def show(found: dict[str, Series], judged: dict[str, float]) -> None:
    """Print tables and verdicts."""
    for how, series in found.items():
        unit = "ns/packet" if how == "replayed" else "us/packet"
        for name, costs in series.items():
            print(f"{how}, {name}")
            rows = {f"{flows:7} flows": costs[flows] for flows in sorted(costs)}
            record.table(rows, unit, next(iter(rows)))
    for name, ratio in judged.items():
        if "ours" in name and "/" not in name:
            record.verdict(name, ratio, TARGET, ratio <= TARGET)
        else:
            print(f"{name}: {ratio}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="perf.flows", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flows", type=int, nargs="+", default=[10**power for power in range(7)])
    parser.add_argument("--replayed", type=int, default=2_000_000, help="packets in the capture")
    parser.add_argument("--packets", type=int, default=100_000, help="live, for each number of flows")
    parser.add_argument("--rate", type=int, default=40_000)
    parser.add_argument("--only", nargs="+", choices=HOW, default=HOW)
    record.add_option(parser)
    options = parser.parse_args()
    if not all(1 <= flows <= MOST_FLOWS for flows in options.flows):
        parser.error(f"--flows: expected numbers from 1 to {MOST_FLOWS}")
    return options


def main() -> None:
    """Measure, print and record."""
    options = arguments()
    found: dict[str, Series] = {}
    spoiled: list[str] = []
    room = conntrack_room()
    if "replayed" in options.only:
        found["replayed"] = replayed(options.flows, options.rounds, options.replayed)
    rounds, count, rate = options.rounds, options.packets, options.rate
    if "live" in options.only:
        levels = list(dict.fromkeys(min(flows, room) for flows in options.flows))
        print(f"live: up to {max(levels)} flows, as conntrack leaves room for {room}")
        found["live"], spoiled = live(levels, rounds, count, rate, sink_behind_gateway)
    if "untracked" in options.only:
        found["untracked"], wrong = live(options.flows, rounds, count, rate, untracked_sink)
        spoiled += wrong
    judged = ratios(found)
    show(found, judged)
    record.write(
        "flows",
        "CPU for a packet among many flows: replayed in nanoseconds, live in microseconds",
        {
            "options": vars(options),
            "live_room_flows": room,
            "target": TARGET,
            "ratios": judged,
            "samples": found,
            "not_counted": spoiled,
        },
        options.beside,
    )
    draw(found, options.beside)


def draw(found: dict[str, Series], beside: str) -> None:
    """A picture of the replays, or else of the first live way."""
    how = next(iter(found))
    unit = "nanoseconds" if how == "replayed" else "microseconds"
    series = {
        f"{name}, {flows} flows": costs for name, each in found[how].items() for flows, costs in each.items()
    }
    record.plot("flows", f"CPU for a packet of any of so many flows, {how}", unit, series, beside)


if __name__ == "__main__":
    main()
