"""What do those pay whom no policy matches, while a daemon with a hundred policies runs on both hosts?

    python -m perf.unmatched [--rounds 15] [--seconds 2] [--policies 100]

Needs root. Pairs of hosts, one without any daemon, one with a daemon at both ends, whose policies ask for
ports, users and programs of others, with TCP and UDP. Beside them, what anything pays that diverts packets by
rules: a pair with an empty chain in the mangle table, and one with a rule that asks conntrack. Each round
measures each pair once, in turn, so that a noisy minute is noisy for all: TCP and UDP throughput of iperf3,
and UDP round trips. The figure is the median of the rounds' ratios.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from perf import lab, record
from tests.netns.topology import Host, Hosts, two_hosts

IPERF_PORT, ECHO_PORT = 5201, 7
ROUND_TRIPS, PAYLOAD_BYTES = 20_000, 200
MATCHES = (
    lambda number: f"remote_port = [{20000 + 2 * number}]",
    lambda number: f"local_port = [{30000 + 2 * number}]",
    lambda number: f"user = [{60000 + number}]",
    lambda number: f'program = ["prog{number}"]',
)  # fmt: skip
HOOKED = ("-N nothing", "-A OUTPUT -j nothing", "-A INPUT -j nothing")  # in the mangle table
WITHOUT, WITH = "without", "with"
CONTROLS = {
    "an empty mangle chain": HOOKED,
    "a rule that asks conntrack": (*HOOKED, "-A nothing -m connmark --mark 0x77/0xff -j RETURN"),
}
CHAIN = '[{ module = "drop", prefix = "hex:ffff" }]'
TARGET = 0.99


def configuration(directory: Path, count: int) -> Path:
    """So many policies, of each kind as many; kind by kind, as their priorities say."""
    lab.write_config(directory, CHAIN, "{}")
    (directory / "policies" / "bench.toml").write_text(
        "".join(
            f"[policy.p{number}]\npriority = {number * len(MATCHES) // count}\n"
            f"match = {{ {MATCHES[number * len(MATCHES) // count](number)} }}\nchain = {CHAIN}\n"
            'path = "queue"\n'
            for number in range(count)
        )
    )
    return directory


@contextlib.contextmanager
def pair(policies: int = 0, rules: Sequence[str] = ()) -> Iterator[Hosts]:
    """Two hosts with servers in b; with policies: a daemon in each; with rules: these in each."""
    with two_hosts() as hosts, tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for host in (hosts.a, hosts.b) if policies else ():
            config = configuration(Path(folder) / host.name[-1], policies)
            stack.enter_context(lab.daemon(host, config))
        for host, rule in itertools.product((hosts.a, hosts.b), rules):
            host.run(["iptables", "-t", "mangle", *rule.split()])
        for words in (
            ["iperf3", "-s", "-p", str(IPERF_PORT)],
            [str(lab.compiled("pingpong")), "echo", str(ECHO_PORT)],
        ):
            hosts.b.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lab.warm(hosts)
        yield hosts


def iperf(hosts: Hosts, seconds: int, *options: str) -> float:
    """Gbit/s that arrived."""
    words = ["iperf3", "-c", hosts.b.ipv4, "-p", str(IPERF_PORT), "-t", str(seconds), "-J", *options]
    report = json.loads(hosts.a.run(words, check=False, timeout=seconds + 30).stdout)
    if "error" in report:
        raise lab.BenchmarkError(report["error"])
    end = report["end"]
    received = end.get("sum_received") or end["sum"]
    return float(received["bytes"]) * 8 / float(received["seconds"]) / 1e9


def round_trip(hosts: Hosts, _: int) -> float:
    """Median, in microseconds."""
    words = [
        str(lab.compiled("pingpong")),
        "ask",
        hosts.b.ipv4,
        *map(str, (ECHO_PORT, ROUND_TRIPS, PAYLOAD_BYTES)),
    ]
    return float(json.loads(hosts.a.run(words).stdout)["p50_ns"]) / 1000


QUESTIONS: dict[str, Callable[[Hosts, int], float]] = {
    "TCP, Gbit/s": iperf,
    "UDP, Gbit/s": lambda hosts, seconds: iperf(hosts, seconds, "-u", "-b", "0", "-l", "1400"),
    "round trip, us": round_trip,
}


def nothing_queued(host: Host) -> None:
    """Raises BenchmarkError if a packet has come to a queue."""
    if lab.queue_counts(host).queued:
        raise lab.BenchmarkError("a packet that no policy matches came to a queue")


def measure(policies: int, rounds: int, seconds: int) -> dict[str, dict[str, list[float]]]:
    """By question and pair."""
    with contextlib.ExitStack() as stack:
        pairs = {WITHOUT: stack.enter_context(pair()), WITH: stack.enter_context(pair(policies))}
        pairs |= {name: stack.enter_context(pair(rules=rules)) for name, rules in CONTROLS.items()}
        found: dict[str, dict[str, list[float]]] = {
            name: {which: [] for which in pairs} for name in QUESTIONS
        }
        for turn in range(rounds):
            for name, question in QUESTIONS.items():
                for which in lab.turned(pairs, turn):
                    found[name][which].append(question(pairs[which], seconds))
        nothing_queued(pairs[WITH].a)
        nothing_queued(pairs[WITH].b)
    return found


def ratio(name: str, series: dict[str, list[float]], which: str = WITH) -> float:
    """A pair to the one without anything, more is better: the median of the rounds'."""
    each = zip(series[which], series[WITHOUT], strict=True)
    return statistics.median(b / a if name.startswith("round trip") else a / b for a, b in each)


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.unmatched", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--policies", type=int, default=100)
    options = parser.parse_args()
    found = measure(options.policies, options.rounds, options.seconds)
    ratios = {name: round(ratio(name, series), 4) for name, series in found.items()}
    controls = {
        f"{name}, {which}": round(ratio(name, found[name], which), 4) for name in found for which in CONTROLS
    }
    flat = {f"{name}, {which}": values for name, series in found.items() for which, values in series.items()}
    record.table(flat, "")
    for name, value in ratios.items():
        record.verdict(name, value, TARGET, value >= TARGET)
    for name, value in controls.items():
        print(f"{name}: {value:.3f}")
    record.write(
        "unmatched",
        "throughput and round trips of traffic that no policy matches, with and without layer45",
        {
            "ratios": ratios,
            "controls": controls,
            "target": TARGET,
            "samples": found,
            "options": vars(options),
        },
    )
    record.plot("unmatched", "Traffic that no policy matches", "Gbit/s, or microseconds", flat)


if __name__ == "__main__":
    main()
