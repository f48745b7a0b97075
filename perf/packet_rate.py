"""How many packets a second get from program to program through empty chains at both ends, against no rules?

    python -m perf.packet_rate [--rounds 5] [--seconds 2] [--rates 20000 50000 100000 0] [--bytes 64]

Needs root. A sender in host a, a receiver in host b; a daemon at both, egress and ingress, or neither and no
rule of ours. At each rate the ratio is that of the packets that arrived a second, from the first to the last.
Where the sender's pace is the limit, it says whether the queues keep up. At rate 0 the sender goes as fast as
its socket's buffer lets it, and the ratio says what they cost at most.

Sender, receiver and two engines want a core each. Where there are fewer, they share: the rate at which all of
them together need every core is printed beside the others, and none can pass it (soft interrupts in threads
of their own come on top). What is lost is counted, and none may pass a queue by.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
from collections.abc import Iterator
from typing import Any

from perf import ends, lab, record
from perf.serving import EMPTY
from tests.netns.topology import Host, Hosts, two_hosts

CASES = {"no rules": ends.nobody, "empty chains": ends.ours(EMPTY)}
TRAFFIC = ends.Traffic(("udp",), (lab.PORT,))
DIRECT, OURS = CASES
TARGET = 0.95
FULL_SPEED = 150_000  # packets for each second asked for, where none is given
WARMING = 2000
END_S = 30.0
Sample = dict[str, float]


@contextlib.contextmanager
def receiver(host: Host) -> Iterator[dict[str, int]]:
    """A receiver that is ready; at the end, what it has counted."""
    counted: dict[str, int] = {}
    program = [str(lab.compiled("receiver")), str(lab.PORT)]
    process: subprocess.Popen[Any] = host.popen(program, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as said:
        if said.readline() != "ready\n":
            raise lab.BenchmarkError("the receiver does not start")
        try:
            yield counted
            process.wait(END_S)
            counted.update(json.loads(said.read()))
        except subprocess.TimeoutExpired:
            raise lab.BenchmarkError("nothing arrived") from None
        finally:
            process.kill()
            process.wait()


def sample(hosts: Hosts, both: ends.Ends, load: lab.Load) -> Sample:
    """One load; microseconds are CPU for a packet sent. Raises BenchmarkError."""
    with receiver(hosts.b):
        lab.send(hosts.a, hosts.b.ipv4, lab.Load(WARMING, load.packet_bytes, rate=20_000))
    before, spent = [lab.queue_counts(host) for host in hosts], ends.cpu_ns(both)
    with receiver(hosts.b) as counted:
        sent = lab.send(hosts.a, hosts.b.ipv4, load)
        lab.wait_until_empty(hosts.a)
        lab.wait_until_empty(hosts.b)
    spent = ends.cpu_ns(both) - spent
    _check(hosts, bool(both), load, before, counted["received"])
    cpu_ns = {"sender": sent["cpu_ns"], "engines": spent, "receiver": counted["cpu_ns"]}
    return {
        "arrived_per_s": counted["received"] * 1e9 / max(counted["elapsed_ns"], 1),
        "lost_percent": 100 * (1 - counted["received"] / load.packets),
        **{f"{who}_us": each / load.packets / 1000 for who, each in cpu_ns.items()},
    }


def _check(hosts: Hosts, served: bool, load: lab.Load, before: list[lab.QueueCounts], received: int) -> None:
    """Each packet went through a's queue or was dropped there; each that arrived, through b's."""
    after = [lab.queue_counts(host) for host in hosts]
    (sent, arrived), (dropped, _) = (
        [getattr(now, name) - getattr(then, name) for now, then in zip(after, before, strict=True)]
        for name in ("queued", "dropped")
    )
    if served and (sent + dropped != load.packets or arrived < received):
        raise lab.BenchmarkError(
            f"{load.packets} sent, {sent} queued and {dropped} dropped at a, {arrived} queued at b, "
            f"{received} received"
        )


def measure(rounds: int, loads: dict[str, lab.Load]) -> tuple[dict[str, dict[str, list[Sample]]], list[str]]:
    """Samples by load and case, and what went wrong; the order turns by one each round."""
    samples: dict[str, dict[str, list[Sample]]] = {load: {name: [] for name in CASES} for load in loads}
    spoiled: list[str] = []
    with two_hosts() as hosts:
        for turn in range(rounds):
            for name in lab.turned(CASES, turn):
                with CASES[name](hosts, TRAFFIC) as both:
                    for load, each in loads.items():
                        try:
                            samples[load][name].append(sample(hosts, both, each))
                        except lab.BenchmarkError as error:
                            spoiled.append(f"round {turn}, {name}, {load}: {error}")
                            print(f"perf: not counted: {spoiled[-1]}", flush=True)
    return samples, spoiled


def medians(runs: list[Sample]) -> Sample:
    """Of each figure."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]} if runs else {}


def _show(name: str, found: Sample) -> None:
    total_us = sum(found[f"{who}_us"] for who in ("sender", "engines", "receiver"))
    most = (os.cpu_count() or 1) * 1e6 / total_us
    cpu = ", ".join(f"{who} {found[f'{who}_us']:.2f}" for who in ("sender", "engines", "receiver"))
    print(f"  {name}: {found['arrived_per_s']:.0f}/s arrived, {found['lost_percent']:.2f} % lost")
    print(f"    CPU a packet: {cpu} us, so that all cores together can do {most:.0f}/s")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="perf.packet_rate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of each load, roughly at rate 0")
    parser.add_argument("--rates", type=int, nargs="+", default=[20_000, 50_000, 100_000, 0])
    parser.add_argument("--burst", type=int, default=16)
    parser.add_argument("--bytes", type=int, default=64, help="of the IP packet")
    return parser.parse_args()


def main() -> None:
    """Measure, print and record."""
    options = arguments()
    loads = {
        f"{rate}/s" if rate else "as fast as it goes": lab.Load(
            int((rate or FULL_SPEED) * options.seconds), options.bytes, options.burst, rate
        )
        for rate in options.rates
    }
    samples, spoiled = measure(options.rounds, loads)
    ratios = {}
    for load, runs in samples.items():
        found = {name: medians(each) for name, each in runs.items() if each}
        print(load)
        for name, figures in found.items():
            _show(name, figures)
        if len(found) == len(CASES):
            ratio = round(found[OURS]["arrived_per_s"] / found[DIRECT]["arrived_per_s"], 3)
            ratios[load] = {"ratio": ratio, "target": TARGET, "met": ratio >= TARGET}
            record.verdict(f"{OURS} / {DIRECT}, {load}", ratio, TARGET, ratio >= TARGET)
    record.write(
        "packet_rate",
        "packets a second from program to program through empty chains at both ends",
        {
            "options": vars(options),
            "cores": os.cpu_count(),
            "targets": ratios,
            "samples": samples,
            "not_counted": spoiled,
        },
    )
    series = {
        f"{name}, {load}": [run["arrived_per_s"] / 1000 for run in runs]
        for load, each in samples.items()
        for name, runs in each.items()
        if runs
    }
    record.plot("packet_rate", "64-byte packets that arrived", "thousand packets/s", series)


if __name__ == "__main__":
    main()
