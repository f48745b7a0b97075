"""How soon is a change of policies on the wire, and is every fresh program customized from its first packet?

    python -m perf.loader [--rounds 11] [--policies 10 1000] [--queries 1000]

Needs root and dig. A daemon in host a, none in host b, which so sees what is on the wire. Change: a datagram
of a new socket leaves each half millisecond; from a command, as a client of the control socket gives it, to
the arrival of the first datagram that the policy customizes, among 10 and among 1000 policies, by port or by
program. Names: dig, one query each, matched by its name alone; every query on the wire must have a tag.
"""

import argparse
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from layer45.control_client import ask
from layer45.control_messages import ChangeState, Reload
from perf import lab, record
from tests.netns.daemons import Daemon, running
from tests.netns.topology import Hosts, two_hosts

SETTINGS = "mark_mask = 0x0fff0000"  # a thousand classes
PORT = 5000
NAMES_PORT = 53
INTERVAL_S = 0.0005
LIMIT_S = 20.0  # for a change
PLAIN_BYTES = 100
LONGEST_QUERY_BYTES = 80  # of a dig without a tag of 32 bytes
TAG = '{ module = "tag", id = "twenty bytes of name" }'
TARGET_MS = {10: 50, 1000: 500}
COMMANDS = ("reload", "activate")
MATCHES: dict[str, Callable[[int], str]] = {
    "port": lambda number: f"remote_port = [{PORT + number}]",
    "program": lambda number: f'program = ["{own_name() if number == 0 else f"prog{number}"}"]',
}


def own_name() -> str:
    """This program's, as the kernel keeps it."""
    return Path("/proc/self/comm").read_text().strip()


def policies(count: int, kind: str, state: str) -> str:
    """The first is about the sender's datagrams, and has the state; the others are in the way."""
    return "\n".join(
        f"[policy.p{number}]\n"
        f'match = {{ protocol = "udp", {MATCHES[kind](number)} }}\n'
        f"chain = [ {TAG} ]\n"
        f'state = "{"active" if number else state}"'
        for number in range(count)
    )


@contextlib.contextmanager
def stream(hosts: Hosts) -> Iterator[socket.socket]:
    """Datagrams from a to b while the context lasts; the receiving socket."""
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(INTERVAL_S):
            with hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x" * PLAIN_BYTES, (hosts.b.ipv4, PORT))

    thread = threading.Thread(target=send)
    with hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((hosts.b.ipv4, PORT))
        receiver.settimeout(5)
        thread.start()
        try:
            yield receiver
        finally:
            ended.set()
            thread.join()


def first_change(receiver: socket.socket, begun: float, customized: bool) -> float:
    """Milliseconds from `begun` to the first datagram that is customized, or is not."""
    while (len(receiver.recv(2000)) != PLAIN_BYTES) != customized:
        if time.monotonic() - begun > LIMIT_S:
            raise lab.BenchmarkError(f"nothing changed within {LIMIT_S:g} s")
    return (time.monotonic() - begun) * 1000


def change(daemon: Daemon, receiver: socket.socket, request: Any, customized: bool) -> tuple[float, float]:
    """Milliseconds to the change on the wire, and to the command's answer."""
    answered: list[float] = []

    def command() -> None:
        ask(daemon.socket, request, daemon.directory)
        answered.append(time.monotonic())

    client = threading.Thread(target=command)
    begun = time.monotonic()
    client.start()
    changed = first_change(receiver, begun, customized)
    client.join()
    return changed, (answered[0] - begun) * 1000


def measure_changes(hosts: Hosts, count: int, kind: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds to the first customized datagram, and to the answer, by command."""
    found: dict[str, list[float]] = {f"{name}{what}": [] for name in COMMANDS for what in ("", ", answer")}
    with running(hosts.a, policies(count, kind, "standby"), SETTINGS) as daemon, stream(hosts) as receiver:
        for _ in range(rounds):
            for name in COMMANDS:
                daemon.configure(policies(count, kind, "active" if name == "reload" else "standby"))
                request = Reload() if name == "reload" else ChangeState("p0", "activate")
                changed, answered = change(daemon, receiver, request, True)
                found[name].append(changed)
                found[f"{name}, answer"].append(answered)
                daemon.configure(policies(count, kind, "standby"))
                change(daemon, receiver, Reload(), False)
    return found


def measure_names(hosts: Hosts, queries: int) -> int:
    """How many queries of that many digs had a tag."""
    match = '{ protocol = "udp", program = "dig" }'
    policy = f"[policy.names]\nmatch = {match}\nchain = [ {TAG} ]\n"
    words = ["dig", f"@{hosts.b.ipv4}", "+time=2", "+tries=1", "a.name.test"]
    tagged = 0
    with running(hosts.a, policy), hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as responder:
        responder.bind((hosts.b.ipv4, NAMES_PORT))
        responder.settimeout(5)
        for _ in range(queries):
            process = hosts.a.popen(words)
            query, asker = responder.recvfrom(2000)
            tagged += len(query) > LONGEST_QUERY_BYTES
            responder.sendto(query[:2] + bytes([query[2] | 0x80]) + query[3:], asker)
            if process.wait(10):
                raise lab.BenchmarkError(f"dig ended with status {process.returncode}")
    return tagged


def main() -> None:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(prog="python -m perf.loader")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--policies", type=int, nargs="+", default=list(TARGET_MS))
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {}
    with two_hosts() as hosts:
        for count in options.policies:
            for kind in MATCHES:
                for what, found in measure_changes(hosts, count, kind, options.rounds).items():
                    samples[f"{count} policies by {kind}: {what}"] = found
        tagged = measure_names(hosts, options.queries)
    figures = {name: record.summary(found) for name, found in samples.items()}
    for name, figure in figures.items():
        print(f"{name}: {figure['median']:.1f} ms")
    print(f"dig by name: {tagged} of {options.queries} first packets customized")
    record.write(
        "loader",
        "how soon a change of policies is on the wire, and whether fresh programs are customized at once",
        {
            "figures": figures,
            "samples": samples,
            "names": {"queries": options.queries, "tagged": tagged},
            "targets_ms": TARGET_MS,
        },
    )
    record.plot("loader", "from a command to the first customized packet", "ms", samples)


if __name__ == "__main__":
    main()
