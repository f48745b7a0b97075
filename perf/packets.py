"""How much CPU does an engine spend on a 64-byte UDP packet?

    python -m perf.packets [--rounds 9] [--packets 200000] [--rate 40000] [--burst 64] [--sink device|host]

Needs root. Every engine stands behind the same rules, those that `layer45 rules` prints for the policy, on
the same queue, and gets the same packets. Rounds are interleaved, so that a noisy hour is noisy for all;
figures are compared only within one run. A sample counts only if every packet was queued, none dropped, and
all arrived. The chain "drop" compares each payload with a prefix that none has, and so drops nothing.

By default packets end at the device (lab.DeviceSink); with --sink host they cross to the other host, and
every engine, the bare loop too, pays for half of the receiver as well (lab.HostSink).
"""

import argparse
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from perf import lab, record
from tests.netns.topology import Hosts, two_hosts

MATCH = f'{{ protocol = "udp", remote_port = ["{lab.PORT}"] }}'
COPY_BYTES = 65531
CHAINS = {
    "empty": "[]",
    "tag": '[{ module = "tag", id = "host-7" }]',
    "scramble": '[{ module = "scramble", key = "hex:00112233445566778899aabbccddeeff" }]',
    "drop": '[{ module = "drop", prefix = "hex:ffff" }]',
    "all": '[{ module = "drop", prefix = "hex:ffff" }, { module = "tag", id = "host-7" }, '
    '{ module = "scramble", key = "hex:00112233445566778899aabbccddeeff" }]',
}
PYTHON = [sys.executable, "-m", "perf.python_callback"]
TARGETS = {"C loop": 1.15, "Python callback": 0.5}

SINKS: dict[str, Callable[[Hosts], lab.Sink]] = {"device": lab.DeviceSink, "host": lab.HostSink}

Engine = Callable[[Hosts], contextlib.AbstractContextManager[int]]  # gives the pid
Samples = list[dict[str, float]]


def our_rules(hosts: Hosts) -> str:
    """What `layer45 rules` prints for IPv4, in iptables-restore's language."""
    with tempfile.TemporaryDirectory() as folder:
        config = lab.write_config(Path(folder) / "etc", CHAINS["tag"], MATCH)
        words = lab.layer45("rules", "--backend", "iptables", "--config", str(config))
        return hosts.a.run(words).stdout.partition("# ip6tables")[0]


@contextlib.contextmanager
def nobody(_: Hosts) -> Iterator[int]:
    """No rule, no queue."""
    yield 0


def standing_in(argv: list[str]) -> Engine:
    """A yardstick, on the queue that our rules feed."""

    @contextlib.contextmanager
    def engine(hosts: Hosts) -> Iterator[int]:
        words = [*argv, str(lab.FIRST_QUEUE), str(COPY_BYTES)]
        with lab.yardstick(hosts.a, words, our_rules(hosts)) as process:
            yield process.pid

    return engine


def ours(chain: str) -> Engine:
    """The daemon with one policy."""

    @contextlib.contextmanager
    def engine(hosts: Hosts) -> Iterator[int]:
        with tempfile.TemporaryDirectory() as folder:
            config = lab.write_config(Path(folder) / "etc", chain, MATCH)
            with lab.daemon(hosts.a, config) as process:
                yield process.pid

    return engine


def engines() -> dict[str, Engine]:
    """All that are compared, by the name the results give them."""
    yardsticks = {
        "direct": nobody,
        "C loop": standing_in([str(lab.compiled("reference_loop"))]),
        "Python callback": standing_in([*PYTHON, "accept"]),
        "Python callback that tags": standing_in([*PYTHON, "tag"]),
    }
    return yardsticks | {f"ours, {name}": ours(chain) for name, chain in CHAINS.items()}


def sample(hosts: Hosts, sink: lab.Sink, engine: Engine, load: lab.Load) -> dict[str, float]:
    """One run: microseconds of engine and of sender for a packet."""
    with engine(hosts) as pid:
        lab.send(hosts.a, hosts.b.ipv4, lab.Load(2000, load.packet_bytes, load.burst, load.rate))
        lab.wait_until_empty(hosts.a)
        sink.packets()
        before, spent = lab.queue_counts(hosts.a), lab.cpu_ns(pid) if pid else 0
        sent = lab.send(hosts.a, hosts.b.ipv4, load)
        lab.wait_until_empty(hosts.a)
        arrived = sink.packets()
        after, spent = lab.queue_counts(hosts.a), (lab.cpu_ns(pid) if pid else 0) - spent
    queued, dropped = after.queued - before.queued, after.dropped - before.dropped
    if arrived != load.packets or dropped or (pid and queued != load.packets):
        raise lab.BenchmarkError(
            f"{load.packets} sent, {queued} queued, {dropped} dropped, {arrived} arrived"
        )
    return {
        "engine_us": spent / load.packets / 1000,
        "sender_us": sent["cpu_ns"] / load.packets / 1000,
        "rate": load.packets * 1e9 / sent["elapsed_ns"],
    }


def measure(
    chosen: dict[str, Engine], rounds: int, load: lab.Load, sinks: str
) -> tuple[dict[str, Samples], list[str]]:
    """Samples by engine, and what went wrong; the order turns by one each round."""
    samples: dict[str, Samples] = {name: [] for name in chosen}
    spoiled: list[str] = []
    with two_hosts() as hosts:
        sink = SINKS[sinks](hosts)
        for turn in range(rounds):
            order = lab.turned(chosen, turn)
            for name in order:
                try:
                    samples[name].append(sample(hosts, sink, chosen[name], load))
                except lab.BenchmarkError as error:
                    spoiled.append(f"round {turn}, {name}: {error}")
                    print(f"perf: not counted: {spoiled[-1]}", file=sys.stderr)
    return {name: runs for name, runs in samples.items() if runs}, spoiled


def verdicts(medians: dict[str, float]) -> dict[str, dict[str, float | bool]]:
    """Each of our one-module chains against the targets."""
    found: dict[str, dict[str, float | bool]] = {}
    for name in (f"ours, {chain}" for chain in ("tag", "scramble", "drop")):
        for yardstick, most in TARGETS.items():
            if name in medians and yardstick in medians:
                ratio = medians[name] / medians[yardstick]
                found[f"{name} / {yardstick}"] = {
                    "ratio": round(ratio, 3),
                    "target": most,
                    "met": ratio <= most,
                }
    return found


def figures(runs: Samples) -> dict[str, dict[str, float | int]]:
    """Each measured thing of one engine, over its rounds."""
    return {key: record.summary([run[key] for run in runs]) for key in runs[0]}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="perf.packets", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--packets", type=int, default=200_000)
    parser.add_argument("--rate", type=int, default=40_000)
    parser.add_argument("--burst", type=int, default=64)
    parser.add_argument("--sink", choices=SINKS, default="device", help="where packets end")
    parser.add_argument("--only", nargs="*", default=[], help="engines to compare; default all")
    return parser.parse_args()


def main() -> None:
    """Measure, print and record."""
    options = arguments()
    load = lab.Load(options.packets, burst=options.burst, rate=options.rate)
    chosen = {name: engine for name, engine in engines().items() if not options.only or name in options.only}
    samples, spoiled = measure(chosen, options.rounds, load, options.sink)
    series = {name: [run["engine_us"] for run in runs] for name, runs in samples.items()}
    targets = verdicts({name: statistics.median(values) for name, values in series.items()})
    record.table(series, "us/packet", "C loop")
    for name, verdict in targets.items():
        record.verdict(name, verdict["ratio"], verdict["target"], bool(verdict["met"]))
    record.write(
        "packets",
        "CPU of an engine for a 64-byte UDP packet, in microseconds",
        {
            "load": {**vars(load), "sink": options.sink},
            "targets": targets,
            "figures": {name: figures(runs) for name, runs in samples.items()},
            "samples": samples,
            "not_counted": spoiled,
        },
    )
    series.pop("direct", None)
    record.plot("packets", f"Engine CPU for a {load.packet_bytes}-byte UDP packet", "microseconds", series)


if __name__ == "__main__":
    main()
