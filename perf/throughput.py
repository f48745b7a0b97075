"""What does an unmodified iperf3 reach through a chain, and what CPU does the chain cost for each gigabyte?

    python -m perf.throughput [--rounds 5] [--seconds 5] [--udp-rate 100M]

Needs root. A daemon runs at both ends, egress at the client and ingress at the server, so what arrives is
what was sent. Rounds are interleaved; figures are compared only within one run. UDP is offered at one rate,
in datagrams that fit the MTU with their tag: what counts there is the loss, and the CPU for a gigabyte.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import time
from collections.abc import Iterator

from perf import lab, record
from tests.netns.topology import Host, Hosts, two_hosts

IPERF_PORT = 5201
DATAGRAM_BYTES = 1400
SCRAMBLE = '[{ module = "scramble", key = "hex:00112233445566778899aabbccddeeff" }]'
TAG = '[{ module = "tag", id = "host-7" }]'
CASES: dict[str, tuple[str, str | None]] = {
    "TCP, direct": ("tcp", None),
    "TCP, empty chain": ("tcp", "[]"),
    "TCP, scramble": ("tcp", SCRAMBLE),
    "UDP, direct": ("udp", None),
    "UDP, empty chain": ("udp", "[]"),
    "UDP, tag": ("udp", TAG),
}


@contextlib.contextmanager
def server(host: Host) -> Iterator[None]:
    """iperf3 -s for one test."""
    words = ["iperf3", "-s", "-1", "-p", str(IPERF_PORT)]
    process = host.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 5
        while f":{IPERF_PORT}" not in host.run(["ss", "-Hltn"]).stdout and time.monotonic() < deadline:
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def sample(hosts: Hosts, protocol: str, chain: str | None, seconds: int, rate: str) -> dict[str, float]:
    """One iperf3 run."""
    words = ["iperf3", "-c", hosts.b.ipv4, "-p", str(IPERF_PORT), "-t", str(seconds), "-J"]
    words += ["-u", "-b", rate, "-l", str(DATAGRAM_BYTES)] if protocol == "udp" else []
    with lab.chain_at_both_ends(hosts, protocol, IPERF_PORT, chain) as pids, server(hosts.b):
        before = sum(map(lab.cpu_ns, pids))
        done = hosts.a.run(words, check=False, timeout=seconds + 30)
        spent_s = (sum(map(lab.cpu_ns, pids)) - before) / 1e9
    report = json.loads(done.stdout)
    if "error" in report:
        raise lab.BenchmarkError(report["error"])
    end = report["end"]["sum"] if protocol == "udp" else report["end"]["sum_received"]
    lost = end.get("lost_percent", 0.0)
    received = end["bytes"] * (1 - lost / 100)
    return {
        "gbit_per_s": received * 8 / end["seconds"] / 1e9,
        "cpu_s_per_gb": spent_s / (received / 1e9),
        "lost_percent": lost,
    }


def measure(rounds: int, seconds: int, rate: str) -> tuple[dict[str, list[dict[str, float]]], list[str]]:
    """Samples by case, and what went wrong. The order turns by one each round."""
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    spoiled: list[str] = []
    with two_hosts() as hosts:
        for turn in range(rounds):
            order = lab.turned(CASES, turn)
            for name in order:
                try:
                    samples[name].append(sample(hosts, *CASES[name], seconds, rate))
                except lab.BenchmarkError as error:
                    spoiled.append(f"round {turn}, {name}: {error}")
                    print(f"perf: not counted: {spoiled[-1]}")
    return {name: runs for name, runs in samples.items() if runs}, spoiled


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.throughput", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--udp-rate", default="100M", help="what UDP is offered, as iperf3's -b")
    options = parser.parse_args()
    samples, spoiled = measure(options.rounds, options.seconds, options.udp_rate)
    series = {name: [run["gbit_per_s"] for run in runs] for name, runs in samples.items()}
    record.table(series, "Gbit/s")
    for name, runs in samples.items():
        cost, lost = (statistics.median(run[key] for run in runs) for key in ("cpu_s_per_gb", "lost_percent"))
        print(f"{name}: {cost:.2f} s of engine CPU a GB at both ends together, {lost:.2f} % lost")
    figures = {
        name: {key: record.summary([run[key] for run in runs]) for key in runs[0]}
        for name, runs in samples.items()
    }
    record.write(
        "throughput",
        "iperf3 throughput through a chain at both ends, and the engines' CPU",
        {"udp_rate": options.udp_rate, "figures": figures, "samples": samples, "not_counted": spoiled},
    )
    record.plot("throughput", "iperf3, one stream, a chain at both ends", "Gbit/s", series)


if __name__ == "__main__":
    main()
