"""What is left of a direct TCP stream when every payload byte is changed, and what does the GSO flag bring?

    python -m perf.gso [--rounds 7] [--seconds 3] [--congestion cubic bbr]

Needs root. One iperf3 stream, a daemon at both ends, everything on the same processors. Under the GSO flag
packets of up to 64 KiB go through the queue whole; a policy for TCP and UDP together does without the flag,
and so is the same chain without it. A chain that makes the stream longer is measured both ways, too: with
super-packets, of which what does not fit any more is sent beside them, and, by a module that takes none,
with segments. Rounds are interleaved, and a share is taken within a round: what else
the machine does in between touches both of its sides. A round in which the receiver saw a wrong checksum is
not counted.
"""

import argparse
import json
import statistics
from pathlib import Path

from perf import lab, record, throughput
from tests.netns.topology import Hosts, two_hosts

DIRECT, EMPTY, WITH, WITHOUT = "direct", "empty chain", "scramble, GSO flag", "scramble, no GSO flag"
CUT, SEGMENTS = "stream_tag, super-packets cut", "stream_tag, segments"
TAG = '{ module = "stream_tag", every_bytes = 1000, tag_bytes = 32 }'
FLAGLESS = '{ module = "drop", prefix = "hex:ffffffffffffffffffff" }'  # drops nothing
CASES: dict[str, tuple[str | list[str], str | None]] = {
    DIRECT: ("tcp", None),
    EMPTY: ("tcp", "[]"),
    WITH: ("tcp", throughput.SCRAMBLE),
    WITHOUT: (["tcp", "udp"], throughput.SCRAMBLE),
    CUT: ("tcp", f"[{TAG}]"),
    SEGMENTS: ("tcp", f"[{FLAGLESS}, {TAG}]"),
}
TARGETS = [(WITH, DIRECT, 0.5), (WITH, WITHOUT, 4.0)]
Sample = dict[str, float]
Round = dict[str, Sample]


def sample(hosts: Hosts, case: str, seconds: int, congestion: str) -> Sample:
    """One iperf3 run."""
    words = ["iperf3", "-c", hosts.b.ipv4, "-p", str(throughput.IPERF_PORT), "-t", str(seconds)]
    words += ["-J", "-C", congestion]
    wrong = hosts.b.checksum_errors()["tcp"]
    protocol, chain = CASES[case]
    with (
        lab.chain_at_both_ends(hosts, protocol, throughput.IPERF_PORT, chain) as pids,
        throughput.server(hosts.b),
    ):
        before = sum(map(lab.cpu_ns, pids))
        report = json.loads(hosts.a.run(words, check=False, timeout=seconds + 30).stdout)
        spent_s = (sum(map(lab.cpu_ns, pids)) - before) / 1e9
    if "error" in report:
        raise lab.BenchmarkError(report["error"])
    if hosts.b.checksum_errors()["tcp"] != wrong:
        raise lab.BenchmarkError("packets with a wrong checksum arrived")
    end = report["end"]["sum_received"]
    return {
        "gbit_per_s": end["bits_per_second"] / 1e9,
        "engine_cpu_s_per_gb": spent_s / (end["bytes"] / 1e9),
        "retransmits": report["end"]["sum_sent"]["retransmits"],
    }


def measure(rounds: int, seconds: int, algorithms: list[str]) -> tuple[dict[str, list[Round]], list[str]]:
    """Whole rounds by congestion control, and what went wrong. The order turns by one each round."""
    found: dict[str, list[Round]] = {algorithm: [] for algorithm in algorithms}
    spoiled: list[str] = []
    with two_hosts() as hosts:
        for turn in range(rounds):
            for algorithm in algorithms:
                order = lab.turned(CASES, turn)
                try:
                    found[algorithm].append({name: sample(hosts, name, seconds, algorithm) for name in order})
                except lab.BenchmarkError as error:
                    spoiled.append(f"round {turn}, {algorithm}: {error}")
                    print(f"perf: not counted: {spoiled[-1]}")
    return found, spoiled


def shares(rounds: list[Round], part: str, whole: str) -> list[float]:
    """Of each round."""
    return [each[part]["gbit_per_s"] / each[whole]["gbit_per_s"] for each in rounds]


def figures_of(rounds: list[Round]) -> dict[str, dict[str, dict[str, float | int]]]:
    """Summaries by case, and of the shares that have a target."""
    series = {
        key: {name: record.summary([each[name][key] for each in rounds]) for name in CASES}
        for key in ("gbit_per_s", "engine_cpu_s_per_gb")
    }
    ratios = {
        f"{part} / {whole}": {**record.summary(shares(rounds, part, whole)), "target": least}
        for part, whole, least in TARGETS
    }
    return {**series, "shares": ratios}


def show(algorithm: str, rounds: list[Round]) -> None:
    """On the terminal."""
    print(f"-- {algorithm}")
    record.table({name: [each[name]["gbit_per_s"] for each in rounds] for name in CASES}, "Gbit/s")
    for name in CASES:
        cost = statistics.median(each[name]["engine_cpu_s_per_gb"] for each in rounds)
        print(f"{name}: {cost:.2f} s of engine CPU a GB, both ends together")
    for part, whole, least in TARGETS:
        print(f"{part} / {whole}: {statistics.median(shares(rounds, part, whole)):.2f}, target {least}")


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.gso", description=(__doc__ or "").splitlines()[0])
    usual = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--congestion", nargs="+", default=[usual], help="default: the host's")
    options = parser.parse_args()
    found, spoiled = measure(options.rounds, options.seconds, options.congestion)
    found = {algorithm: rounds for algorithm, rounds in found.items() if rounds}
    for algorithm, rounds in found.items():
        show(algorithm, rounds)
    record.write(
        "gso",
        "What is left of a direct TCP stream when every byte is changed, and what the GSO flag brings",
        {
            "figures": {algorithm: figures_of(rounds) for algorithm, rounds in found.items()},
            "rounds": found,
            "not_counted": spoiled,
        },
    )
    series = {
        f"{algorithm}: {name}": [each[name]["gbit_per_s"] for each in rounds]
        for algorithm, rounds in found.items()
        for name in CASES
    }
    record.plot("gso", "iperf3, one TCP stream, a chain at both ends", "Gbit/s", series)


if __name__ == "__main__":
    main()
