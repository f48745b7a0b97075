"""How much CPU does an engine spend on a UDP packet, by its size and by what is done with it?

    python -m perf.packets [--rounds 9] [--packets 200000] [--rate 40000] [--burst 64] [--sizes 64 512 1400]
                           [--sink device|host] [--only ENGINE…] [--set KEY=N…]

Needs root. Every engine stands behind the same rules, those that `layer45 rules` prints for the policy, on
the same queue, and gets the same packets. Rounds are interleaved, so that a noisy hour is noisy for all;
figures are compared only within one run. A sample counts only if every packet was queued, none dropped, and
all arrived, with those that modules add. The chain "drop" compares each payload with a prefix that none has,
and so drops nothing; "all" are tag, scramble and drop; "every module" are all of those for UDP but the one in
Python. option_tag and stream_tag are for TCP.

By default packets end at the device (lab.DeviceSink); with --sink host they cross to the other host, and
every engine, the bare loop too, pays for half of the receiver as well (lab.HostSink). With --rate 0 the
sender goes as fast as its socket's buffer lets it: packets a second are then the most of engine or sender.

Beside an engine's CPU: the sender's; packets a second; packets a batch (the bare loop's over all sizes); and
what the machine spent in soft interrupts meanwhile, whoever it was for: most of it is the sender's or the
engine's too, in their system calls.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from perf import lab, record, serving
from perf.serving import DROP, EMPTY, SCRAMBLE, TAG, Engine, Served
from tests.netns.topology import Hosts, two_hosts

CHAINS = {
    "empty": EMPTY,
    "tag": f"[{TAG}]",
    "scramble": f"[{SCRAMBLE}]",
    "drop": f"[{DROP}]",
    "all": f"[{DROP}, {TAG}, {SCRAMBLE}]",
    "duplicate": '[{ module = "duplicate" }]',
    "fec": '[{ module = "fec" }]',
    "impair": '[{ module = "impair" }]',
    "python": '[{ module = "example_python" }]',
    "every module": f"[{DROP}, {TAG}, {SCRAMBLE}, "
    '{ module = "duplicate" }, { module = "fec" }, { module = "impair" }]',
}
TARGETS = (
    ("ours, empty", "C loop", 1.05),
    ("ours, all", "C loop", 1.20),
    ("ours, empty", "Python callback", 0.45),
)
TARGET_BYTES = 64
WARMING = 2000  # packets
SETTLE_S = 3.0

SINKS: dict[str, Callable[[Hosts], lab.Sink]] = {"device": lab.DeviceSink, "host": lab.HostSink}
Sample = dict[str, float]
Samples = dict[str, dict[str, list[Sample]]]  # by load and engine


def engines(**settings: int) -> dict[str, Engine]:
    """All that are compared, by the name the results give them. settings: further ones of our daemon."""
    yardsticks = {
        "direct": serving.nobody,
        "C loop": serving.c_loop(),
        "Python callback": serving.standing_in(*serving.PYTHON_CALLBACK, "accept"),
        "Python callback that tags": serving.standing_in(*serving.PYTHON_CALLBACK, "tag"),
    }
    return yardsticks | {f"ours, {name}": serving.ours(chain, **settings) for name, chain in CHAINS.items()}


def sample(hosts: Hosts, sink: lab.Sink, engine: Engine, load: lab.Load) -> Sample:
    """One run of one load: microseconds of engine and of sender for a packet, and what else is known."""
    found, spoiled = session(hosts, sink, engine, {"": load})
    if spoiled:
        raise lab.BenchmarkError(spoiled[""])
    return found[""]


def session(
    hosts: Hosts, sink: lab.Sink, engine: Engine, loads: Mapping[str, lab.Load], to: str = ""
) -> tuple[dict[str, Sample], dict[str, str]]:
    """All loads, one after another, through an engine that is started once; and what went wrong, by load.

    Each flow of a load has had a packet before. to: their first address, in place of host b's.
    Raises BenchmarkError when it does not start.
    """
    found: dict[str, Sample] = {}
    spoiled: dict[str, str] = {}
    with engine(hosts) as served:
        for name, load in loads.items():
            try:
                found[name] = _one(hosts, sink, served, load, to or hosts.b.ipv4)
            except lab.BenchmarkError as error:
                spoiled[name] = str(error)
    batch = served.batch()
    return {name: run if batch is None else {**run, "batch": batch} for name, run in found.items()}, spoiled


def _one(hosts: Hosts, sink: lab.Sink, served: Served, load: lab.Load, to: str) -> Sample:
    lab.send(hosts.a, to, replace(load, packets=max(WARMING, load.flows), order="turn"))
    lab.wait_until_empty(hosts.a)
    _settled(served)
    sink.packets()
    before, interrupts, counters = lab.queue_counts(hosts.a), lab.softirq_ns(), served.counters()
    spent = served.cpu_ns()
    sent = lab.send(hosts.a, to, load)
    lab.wait_until_empty(hosts.a)
    spent = served.cpu_ns() - spent
    _check(hosts, sink, served, load, before, counters)
    soft, thread = (now - then for now, then in zip(lab.softirq_ns(), interrupts, strict=True))
    changed = {name: value - counters[name] for name, value in served.counters().items()}
    batch = {"batch": changed["received"] / changed["batches"]} if changed else {}
    return {
        "engine_us": spent / load.packets / 1000,
        "sender_us": sent["cpu_ns"] / load.packets / 1000,
        "softirq_us": soft / load.packets / 1000,
        "ksoftirqd_us": thread / load.packets / 1000,
        "rate": load.packets * 1e9 / sent["elapsed_ns"],
        **batch,
    }


def _settled(served: Served) -> None:
    """Until modules have sent what they had in mind."""
    before: dict[str, int] = {}
    now = served.counters()
    while now.get("injected") != before.get("injected"):
        time.sleep(0.02)
        before, now = now, served.counters()


def _check(
    hosts: Hosts,
    sink: lab.Sink,
    served: Served,
    load: lab.Load,
    queue: lab.QueueCounts,
    counters: dict[str, int],
) -> None:
    """Every packet was queued, none dropped, and all that left arrived. Raises BenchmarkError."""
    _settled(served)
    now = served.counters()
    wanted = load.packets + (now["injected"] - counters["injected"] if now else 0)
    arrived, until = sink.packets(), time.monotonic() + SETTLE_S
    while arrived < wanted and time.monotonic() < until:
        time.sleep(0.02)
        arrived += sink.packets()
    after = lab.queue_counts(hosts.a)
    queued, dropped = after.queued - queue.queued, after.dropped - queue.dropped
    if arrived != wanted or dropped or (served.pid and queued != load.packets):
        raise lab.BenchmarkError(
            f"{load.packets} sent, {queued} queued, {dropped} dropped, {arrived} of {wanted} arrived"
        )


def measure(
    chosen: Mapping[str, Engine],
    rounds: int,
    loads: Mapping[str, lab.Load],
    sink_in: Callable[[Hosts], lab.Sink] = lab.DeviceSink,
    to: str = "",
) -> tuple[Samples, list[str]]:
    """Samples by load and engine, and what went wrong; the order turns by one each round. to: see session."""
    samples: Samples = {load: {} for load in loads}
    spoiled: list[str] = []
    with two_hosts() as hosts:
        sink = sink_in(hosts)
        for turn in range(rounds):
            for name in lab.turned(chosen, turn):
                try:
                    found, wrong = session(hosts, sink, chosen[name], loads, to)
                except lab.BenchmarkError as error:
                    found, wrong = {}, {"start": str(error)}
                for load, run in found.items():
                    samples[load].setdefault(name, []).append(run)
                for load, text in wrong.items():
                    spoiled.append(f"round {turn}, {name}, {load}: {text}")
                    print(f"perf: not counted: {spoiled[-1]}", file=sys.stderr)
    ordered = {
        load: {name: found[name] for name in chosen if name in found} for load, found in samples.items()
    }
    return ordered, spoiled


def engine_us(runs: Mapping[str, list[Sample]]) -> dict[str, list[float]]:
    """By engine; those that stand on no queue are left out."""
    series = {name: [run["engine_us"] for run in found] for name, found in runs.items()}
    return {name: found for name, found in series.items() if any(found)}


def verdicts(runs: Mapping[str, list[Sample]]) -> dict[str, dict[str, float | bool]]:
    """Our chains against the targets."""
    medians = {name: statistics.median(found) for name, found in engine_us(runs).items()}
    found: dict[str, dict[str, float | bool]] = {}
    for name, yardstick, most in TARGETS:
        if name in medians and yardstick in medians:
            ratio = round(medians[name] / medians[yardstick], 3)
            found[f"{name} / {yardstick}"] = {"ratio": ratio, "target": most, "met": ratio <= most}
    return found


def figures(runs: list[Sample]) -> dict[str, dict[str, float | int]]:
    """Each measured thing of one engine, over its rounds."""
    return {key: record.summary([run[key] for run in runs]) for key in runs[0]}


def _setting(text: str) -> tuple[str, int]:
    key, _, value = text.partition("=")
    if not (key and value.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected KEY=NUMBER, got {text}")
    return key, int(value)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="perf.packets", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--packets", type=int, default=200_000)
    parser.add_argument("--rate", type=int, default=40_000)
    parser.add_argument("--burst", type=int, default=64)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[64, 512, 1400], help="bytes of the IP packet"
    )
    parser.add_argument("--sink", choices=SINKS, default="device", help="where packets end")
    parser.add_argument("--only", nargs="*", default=[], metavar="ENGINE", help="default all")
    parser.add_argument(
        "--set", nargs="*", default=[], type=_setting, metavar="KEY=N", help="of layer45.toml"
    )
    record.add_option(parser)
    options = parser.parse_args()
    if unknown := set(options.only) - set(engines()):
        parser.error(f"no engine {', '.join(sorted(unknown))}; there are {', '.join(engines())}")
    return options


def _beside(found: list[Sample]) -> str:
    """What a sample has besides the engine's CPU, in words."""
    median = {key: statistics.median(run[key] for run in found) for key in found[0]}
    words = f"{median['rate'] / 1000:.1f} k packets/s, sender {median['sender_us']:.2f} us"
    words += f", soft interrupts {median['softirq_us']:.2f} us, ksoftirqd {median['ksoftirqd_us']:.2f} us"
    return words + (f", {median['batch']:.1f} a batch" if "batch" in median else "")


def shown(samples: Samples) -> dict[str, Any]:
    """Prints tables and verdicts; the verdicts."""
    for load, runs in samples.items():
        print(load)
        if series := engine_us(runs):
            record.table(series, "us/packet", "C loop")
        for name, found in runs.items():
            print(f"  {name}: {_beside(found)}")
    targets = verdicts(samples.get(f"{TARGET_BYTES} bytes", {}))
    for name, verdict in targets.items():
        record.verdict(name, verdict["ratio"], verdict["target"], bool(verdict["met"]))
    return targets


def main() -> None:
    """Measure, print and record."""
    options = arguments()
    loads = {
        f"{size} bytes": lab.Load(options.packets, size, options.burst, options.rate)
        for size in options.sizes
    }
    every = engines(**dict(options.set))
    chosen = {name: every[name] for name in options.only or every}
    samples, spoiled = measure(chosen, options.rounds, loads, SINKS[options.sink])
    if not any(samples.values()):
        sys.exit("perf.packets: no sample counts")
    targets = shown(samples)
    record.write(
        "packets",
        "CPU of an engine for a UDP packet, in microseconds",
        {
            "load": {**vars(options), "only": list(chosen)},
            "targets": targets,
            "figures": {
                load: {name: figures(found) for name, found in runs.items()} for load, runs in samples.items()
            },
            "samples": samples,
            "not_counted": spoiled,
        },
        options.beside,
    )
    series = {f"{name}, {load}": us for load, runs in samples.items() for name, us in engine_us(runs).items()}
    record.plot("packets", "Engine CPU for a UDP packet", "microseconds", series, options.beside)


if __name__ == "__main__":
    main()
