"""What do a thousand policies cost a packet, customized or not, and how soon is each found?

    python -m perf.policies [--rounds 9] [--packets 100000] [--policies 1 10 100 1000]

Needs root. For each number of policies, by port, by user and by program, a pair of hosts of its own with a
daemon; rounds are interleaved over all. Leaving packets end in host a's device (lab.DeviceSink).
"customized": the policy in the middle of all has them, and the price is the sender's and the engine's.
"other": no policy has them, though neighbours of theirs, and the price is the sender's. "arriving": from a
host without a daemon, to a socket of host a that nobody reads; the price is the sender's, in whose time a
veth pair hands packets over, and the engine's.
"""

import argparse
import contextlib
import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from perf import lab, record, serving
from tests.netns.topology import Host, Hosts, two_hosts

FIRST_PORT, FIRST_USER = 10000, 60000
OTHER_NAME = "other"
MASK = 0x0FFF0000
CHAIN = f"[{serving.TAG}]"
MATCHES: dict[str, Callable[[int], str]] = {
    "port": lambda number: f"remote_port = [{FIRST_PORT + 2 * number}]",
    "user": lambda number: f"user = [{FIRST_USER + 2 * number}]",
    "program": lambda number: f'program = ["prog{number}"]',
    "arriving": lambda number: f"local_port = [{FIRST_PORT + 2 * number}]",
}
TARGET = 1.2
BURST, RATE = 64, 40_000


@dataclass(frozen=True)
class Case:
    """So many policies of a kind, with their daemon."""

    kind: str
    count: int
    hosts: Hosts
    pid: int
    programs: Path

    @property
    def chosen(self) -> int:
        """The policy that customizes."""
        return self.count // 2

    def send(self, customized: bool, packets: int) -> dict[str, int]:
        """From whom, and to where, the kind asks for."""
        place = 2 * self.chosen + (0 if customized else 1)
        port = FIRST_PORT + place
        words = [str(lab.compiled("sender"))]
        if self.kind == "user":
            words = ["setpriv", f"--reuid={FIRST_USER + place}", "--clear-groups", *words]
        if self.kind == "program":
            words = [str(self.programs / (f"prog{self.chosen}" if customized else OTHER_NAME))]
        arriving = self.kind == "arriving"
        sender, to = (self.hosts.b, self.hosts.a) if arriving else (self.hosts.a, self.hosts.b)
        numbers = [port, packets, 64, BURST, RATE]
        done = sender.run([*words, to.ipv4, *map(str, numbers)], timeout=300)
        return dict(json.loads(done.stdout))

    def sample(self, customized: bool, packets: int) -> float:
        """Microseconds for a packet. Raises BenchmarkError."""
        self.send(customized, 2000)
        lab.wait_until_empty(self.hosts.a)
        before, spent = lab.queue_counts(self.hosts.a), lab.cpu_ns(self.pid)
        sent = self.send(customized, packets)
        lab.wait_until_empty(self.hosts.a)
        after, spent = lab.queue_counts(self.hosts.a), lab.cpu_ns(self.pid) - spent
        queued = after.queued - before.queued
        if queued != (packets if customized else 0) or after.dropped != before.dropped:
            raise lab.BenchmarkError(f"{packets} sent, {queued} queued, {after.dropped} dropped")
        return (sent["cpu_ns"] + (spent if customized else 0)) / packets / 1000


def configuration(directory: Path, kind: str, count: int) -> Path:
    """So many policies of the kind."""
    lab.write_config(directory, CHAIN, "{}")
    settings = directory / "layer45.toml"
    settings.write_text(f"{settings.read_text()}mark_mask = {MASK:#x}\n")
    (directory / "policies" / "bench.toml").write_text(
        "".join(
            f'[policy.p{number}]\nmatch = {{ protocol = "udp", {MATCHES[kind](number)} }}\nchain = {CHAIN}\n'
            for number in range(count)
        )
    )
    return directory


@contextlib.contextmanager
def case(kind: str, count: int) -> Iterator[Case]:
    """Hosts, programs and daemon."""
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(two_hosts())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in (f"prog{count // 2}", OTHER_NAME):
            shutil.copy(lab.compiled("sender"), folder / name)
        config = configuration(folder / f"{kind}{count}", kind, count)
        process = stack.enter_context(lab.daemon(hosts.a, config))
        made = Case(kind, count, hosts, process.pid, folder)
        if kind == "arriving":
            for port in (FIRST_PORT + 2 * made.chosen, FIRST_PORT + 2 * made.chosen + 1):
                stack.enter_context(_never_read(hosts.a, port))
            lab.warm(hosts)
        else:
            lab.DeviceSink(hosts)
        yield made


def _never_read(host: Host, port: int) -> socket.socket:
    receiver = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind((host.ipv4, port))
    return receiver


def measure(counts: list[int], rounds: int, packets: int) -> dict[str, dict[str, list[float]]]:
    """Microseconds for a packet: by kind and traffic, then by number of policies."""
    found: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        cases = {
            f"{kind} {count}": stack.enter_context(case(kind, count)) for kind in MATCHES for count in counts
        }
        for turn in range(rounds):
            for name in lab.turned(cases, turn):
                each = cases[name]
                for customized in (True, False):
                    series = found.setdefault(f"{each.kind}, {'customized' if customized else 'other'}", {})
                    series.setdefault(str(each.count), []).append(each.sample(customized, packets))
    return found


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.policies", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--packets", type=int, default=100_000)
    parser.add_argument("--policies", type=int, nargs="+", default=[1, 10, 100, 1000])
    options = parser.parse_args()
    found = measure(options.policies, options.rounds, options.packets)
    flat: dict[str, list[float]] = {}
    ratios = {}
    for name, series in sorted(found.items()):
        print(name)
        record.table(
            dict(sorted(series.items(), key=lambda item: int(item[0]))),
            "us/packet",
            str(min(options.policies)),
        )
        flat |= {f"{name}, {count}": samples for count, samples in series.items()}
        medians = {int(count): record.summary(samples)["median"] for count, samples in series.items()}
        ratios[name] = round(medians[max(medians)] / medians[min(medians)], 3)
    for name, ratio in ratios.items():
        record.verdict(name, ratio, TARGET, ratio <= TARGET)
    record.write(
        "policies",
        "CPU for a 64-byte UDP packet among many policies, in microseconds",
        {"ratios": ratios, "target": TARGET, "samples": found, "options": vars(options)},
    )
    record.plot("policies", "CPU for a packet, by number of policies", "microseconds", flat)


if __name__ == "__main__":
    main()
