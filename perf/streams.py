"""What does a tag in a TCP stream cost a download, and a tag in a datagram a name lookup?

    python -m perf.streams [--rounds 5] [--megabytes 300] [--queries 1000]

Needs root, curl, lighttpd, dig and dnsmasq. The servers listen on two ports each; the policies of the daemons
at both ends want one of the two, so customized and other traffic alternate within one run. Downloads pass a
token bucket of 1 Gbit/s at the server's device: 32 bytes in every 1000 make them 3.2 % longer on the wire.
The devices are set as a network card is: segments go one by one over the wire, and are put together then.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from perf import lab, record
from tests.netns.daemons import Service, client_side, server_side
from tests.netns.topology import ETHTOOL_SET_TSO, Host, Hosts, two_hosts

CUSTOMIZED, OTHER = "customized", "not customized"
WEB = {CUSTOMIZED: 8080, OTHER: 8081}
NAMES = {CUSTOMIZED: 5301, OTHER: 5302}
STREAM_TAG = '{ module = "stream_tag", every_bytes = 1000, tag_bytes = 32, id = "host-7" }'
TAG = '{ module = "tag", id = "twenty bytes of name" }'  # 12 bytes and these
SERVICES = [
    Service("web", WEB[CUSTOMIZED], STREAM_TAG, protocol="tcp"),
    Service("names", NAMES[CUSTOMIZED], TAG),
]
RATE = ["rate", "1gbit", "burst", "128kb", "latency", "20ms"]
TARGETS = {"download": 1.035, "lookup": 1.016}

Samples = dict[str, dict[str, list[float]]]


@contextlib.contextmanager
def daemons(hosts: Hosts, directory: Path) -> Iterator[list[int]]:
    """The pids of both ends'."""
    with contextlib.ExitStack() as stack:
        pids = []
        for host, policies in ((hosts.a, client_side(SERVICES)), (hosts.b, server_side(SERVICES))):
            config = lab.write_config(directory / host.name[-1], "[]", "{}")
            (config / "policies" / "bench.toml").write_text(policies)
            pids.append(stack.enter_context(lab.daemon(host, config)).pid)
        yield pids


@contextlib.contextmanager
def servers(host: Host, directory: Path, megabytes: int) -> Iterator[None]:
    """lighttpd with a file of so many random megabytes, and dnsmasq that knows a name, on both ports each."""
    with (directory / "file").open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))
    processes = []
    for port in WEB.values():
        text = f'server.document-root = "{directory}"\nserver.port = {port}\nserver.bind = "{host.ipv4}"\n'
        (directory / f"web{port}").write_text(text)
        processes.append(_quiet(host, ["lighttpd", "-D", "-f", str(directory / f"web{port}")]))
    for port in NAMES.values():
        words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--no-resolv"]
        words += ["--no-hosts", f"--port={port}", "--address=/example.test/192.0.2.1"]
        processes.append(_quiet(host, words))
    try:
        lab.wait_for_ports(host, [*WEB.values(), *NAMES.values()])
        yield
    finally:
        for process in processes:
            process.terminate()
            process.wait()


def _quiet(host: Host, words: list[str]) -> "subprocess.Popen[str]":
    return host.popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def download(hosts: Hosts, port: int, size: int) -> float:
    """Seconds, by curl."""
    words = ["curl", "-s", "-o", "/dev/null", "-w", "%{time_total} %{size_download}"]
    done = hosts.a.run([*words, f"http://{hosts.b.ipv4}:{port}/file"], timeout=300)
    seconds, received = done.stdout.split()
    if int(received) != size:
        raise lab.BenchmarkError(f"{received} bytes came, not {size}")
    return float(seconds)


def lookups(hosts: Hosts, count: int) -> dict[str, list[float]]:
    """Milliseconds of each dig, customized and not in turn."""
    taken: dict[str, list[float]] = {case: [] for case in NAMES}
    with hosts.a.entered():
        for _ in range(count):
            for case, port in NAMES.items():
                begun = time.perf_counter()
                words = ["dig", f"@{hosts.b.ipv4}", "-p", str(port), "+short", "example.test"]
                answer = subprocess.run(words, capture_output=True, text=True, check=False).stdout
                taken[case].append((time.perf_counter() - begun) * 1e3)
                if answer.strip() != "192.0.2.1":
                    raise lab.BenchmarkError(f"dig said {answer.strip()!r}")
    return taken


def downloads(hosts: Hosts, pids: list[int], rounds: int, megabytes: int) -> tuple[Samples, list[float]]:
    """Seconds by case, and the engines' CPU seconds for a gigabyte."""
    seconds: dict[str, list[float]] = {case: [] for case in WEB}
    cpu = []
    for turn in range(rounds):
        for case in lab.turned(WEB, turn):
            before = sum(map(lab.cpu_ns, pids))
            seconds[case].append(download(hosts, WEB[case], megabytes * 1_000_000))
            if case == CUSTOMIZED:
                cpu.append((sum(map(lab.cpu_ns, pids)) - before) / 1e6 / megabytes)
    return {"download": seconds}, cpu


def measure(rounds: int, megabytes: int, queries: int) -> tuple[Samples, list[float]]:
    """All samples, and the engines' CPU seconds for a gigabyte."""
    with tempfile.TemporaryDirectory() as name, two_hosts() as hosts:
        hosts.b.run(["tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *RATE])
        for host in hosts:
            host.set_offloads(True)
            host.set_offload(ETHTOOL_SET_TSO, False)
        lab.warm(hosts)
        with servers(hosts.b, Path(name), megabytes), daemons(hosts, Path(name)) as pids:
            samples, cpu = downloads(hosts, pids, rounds, megabytes)
            return {**samples, "lookup": lookups(hosts, queries)}, cpu


def ratio(cases: dict[str, list[float]]) -> float:
    """The median of customized to other, pair by pair."""
    return statistics.median(
        ours / other for ours, other in zip(cases[CUSTOMIZED], cases[OTHER], strict=True)
    )


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.streams", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--queries", type=int, default=1000)
    record.add_option(parser)
    options = parser.parse_args()
    samples, cpu = measure(options.rounds, options.megabytes, options.queries)
    verdicts = {}
    for name, unit in (("download", "s"), ("lookup", "ms")):
        record.table(samples[name], unit, OTHER)
        found = ratio(samples[name])
        means = statistics.mean(samples[name][CUSTOMIZED]) / statistics.mean(samples[name][OTHER])
        verdicts[name] = {
            "paired": found,
            "means": means,
            "target": TARGETS[name],
            "met": found <= TARGETS[name],
        }
        met = "met" if found <= TARGETS[name] else "MISSED"
        print(f"{name}: x{found:.4f}, pair by pair; target {TARGETS[name]}: {met}")
    print(f"engines' CPU: {statistics.median(cpu):.2f} s a GB, both ends together")
    figures = {
        name: {case: record.summary(each) for case, each in cases.items()} for name, cases in samples.items()
    }
    record.write(
        "streams",
        "what 32 bytes in every 1000 of a stream cost a download at 1 Gbit/s, and a tag a name lookup",
        {"figures": figures, "ratios": verdicts, "cpu_s_per_gb": record.summary(cpu), "samples": samples},
        options.beside,
    )
    record.plot("streams", "download through 1 Gbit/s", "s", samples["download"], options.beside)


if __name__ == "__main__":
    main()
