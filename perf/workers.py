"""What does a second worker give, and what does it cost a packet?

    python -m perf.workers [--rounds 5] [--packets 200000] [--rate 40000] [--flows 256]

Needs root. The setting `workers` is 1 or 2; 64-byte packets of many flows spread over the workers' queues
and end in the device of the sender's host. At a pace that leaves everybody time, CPU for a packet says what
a second worker costs: threads that wake for fewer packets each, and what they share in the kernel. At full
speed, packets a second say what it gives, where a core is free for it. "Cores" is how many the engine kept
busy: near 1, one worker was saturated, as it is by the chain SATURATING, whose three copies of each packet
take longer than the sender does. "Spread" is the part of the packets that the busiest worker had.
"Pinned" is SATURATING's two workers once more, each on one of the first two processors (`worker_cpus`): what
it costs that the scheduler moves them about. The sender may be on those, too, where there are no others.

More cores than there are, on paper: n workers do n / (W (1 + s (n - 1))) packets a second. W is the CPU of
one worker for a packet at full speed; s, by how much that grew for SATURATING when there were two. So the
model assumes that each worker has a core of its own, and senders and receivers have others; that flows
spread evenly; and that what workers share in the kernel (the device's queue, conntrack, memory) costs each
of them in proportion to the number of the others. Queues, their locks and sockets, flow tables, timers and
counters are each worker's own. On few cores s also has what threads pay for taking turns on one.
"""

import argparse
import contextlib
import statistics
from collections.abc import Iterator

from layer45 import processors
from perf import lab, packets, record, serving
from perf.flows import REMOTE, sink_behind_gateway
from perf.serving import Engine, Served
from tests.netns.topology import Hosts

CHAINS = {
    "empty": serving.EMPTY,
    "all": packets.CHAINS["all"],
    "three copies": '[{ module = "duplicate", copies = 4 }]',
}
SATURATING = "three copies"
WORKERS = (1, 2)
PINNED = f"{SATURATING}, 2 workers, pinned"
MODELLED = (1, 2, 4, 8, 16)
PACED, FULL = "paced", "full speed"


def named(chain: str, workers: int) -> str:
    """A case."""
    return f"{chain}, {workers} worker{'s' * (workers > 1)}"


def cases() -> dict[str, Engine]:
    """By name."""
    found = {
        named(chain, count): serving.ours(text, workers=count)
        for chain, text in CHAINS.items()
        for count in WORKERS
    }
    first_two = processors.as_text(sorted(processors.usable())[:2])
    return {**found, PINNED: serving.ours(CHAINS[SATURATING], workers=2, worker_cpus=first_two)}


def watched(engine: Engine, spreads: list[float]) -> Engine:
    """The engine; when it ends, the busiest queue's part of all packets is noted."""

    @contextlib.contextmanager
    def watching(hosts: Hosts) -> Iterator[Served]:
        with engine(hosts) as served:
            yield served
            queued = [each.queued for each in lab.queues(hosts.a).values()]
            spreads.append(max(queued) / max(1, sum(queued)))

    return watching


def model(one_us: float, grows: float) -> dict[int, int]:
    """Packets a second by number of workers."""
    return {count: round(count * 1e6 / (one_us * (1 + grows * (count - 1)))) for count in MODELLED}


def cores(run: packets.Sample) -> float:
    """How many an engine kept busy."""
    return run["engine_us"] * run["rate"] / 1e6


def show(medians: dict[str, dict[str, packets.Sample]], spreads: dict[str, list[float]]) -> None:
    """Print the table."""
    for load, found in medians.items():
        print(load)
        for name, run in found.items():
            spread = statistics.median(spreads[name])
            print(
                f"  {name:31} {run['rate'] / 1000:7.1f} k packets/s  {run['engine_us']:.2f} us/packet  "
                f"{cores(run):.2f} cores  {run['batch']:.1f} a batch  spread {spread:.2f}"
            )


def judge(medians: dict[str, dict[str, packets.Sample]]) -> dict[str, dict[str, object]]:
    """By chain: what the second worker gives and costs, and the model."""
    if not all(
        named(chain, count) in runs for runs in medians.values() for chain in CHAINS for count in WORKERS
    ):
        return {}
    found: dict[str, dict[str, object]] = {}
    one, two = (medians[FULL][named(SATURATING, count)] for count in WORKERS)
    grows = max(0.0, two["engine_us"] / one["engine_us"] - 1)
    print(f"{SATURATING}, 1 worker: {cores(one):.2f} cores; with 2 a packet costs {100 * grows:.1f} % more")
    for chain in CHAINS:
        (paced, more_paced), (full, more_full) = (
            [medians[load][named(chain, count)] for count in WORKERS] for load in (PACED, FULL)
        )
        found[chain] = {
            "speedup_at_full_speed": round(more_full["rate"] / full["rate"], 3),
            "cpu_ratio_paced": round(more_paced["engine_us"] / paced["engine_us"], 3),
            "model_packets_per_s": model(full["engine_us"], grows),
        }
        print(f"{chain}: {found[chain]}")
    return found


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="perf.workers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--packets", type=int, default=200_000)
    parser.add_argument("--rate", type=int, default=40_000, help="of the paced load")
    parser.add_argument("--flows", type=int, default=256)
    return parser.parse_args()


def main() -> None:
    """Measure, print and record."""
    options = arguments()
    spreads: dict[str, list[float]] = {name: [] for name in cases()}
    engines = {name: watched(engine, spreads[name]) for name, engine in cases().items()}
    loads = {
        name: lab.Load(options.packets, rate=rate, flows=options.flows, order="random")
        for name, rate in ((PACED, options.rate), (FULL, 0))
    }
    samples, spoiled = packets.measure(engines, options.rounds, loads, sink_behind_gateway, REMOTE)
    medians = {
        load: {
            name: {key: statistics.median(run[key] for run in found) for key in found[0]}
            for name, found in runs.items()
        }
        for load, runs in samples.items()
    }
    show(medians, spreads)
    judged = judge(medians)
    record.write(
        "workers",
        "packets a second and CPU for a packet with one and with two workers",
        {
            "options": vars(options),
            "chains": judged,
            "spread": {name: record.summary(found) for name, found in spreads.items() if found},
            "samples": samples,
            "not_counted": spoiled,
        },
    )
    series = {name: [run["rate"] / 1000 for run in found] for name, found in samples[FULL].items()}
    record.plot("workers", "64-byte packets at full speed", "thousand packets/s", series)


if __name__ == "__main__":
    main()
