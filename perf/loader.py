"""How soon is a change of policies on the wire, and is every fresh program customized from its first packet?

    python -m perf.loader [--rounds 11] [--policies 10 1000] [--queries 1000]

Needs root and dig. A daemon in host a, none in host b, which so sees what is on the wire. Reload: a datagram
leaves each half millisecond; from the command, as a client of the control socket gives it, to the arrival of
the first datagram that the new policies customize, among 10 and among 1000 policies, by port or by program.
Names: dig, one query each, matched by its name alone; every query on the wire must have a tag.
"""

import argparse
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from layer45.control_client import ask
from layer45.control_messages import Reload
from perf import lab, record
from tests.netns.daemons import Daemon, running
from tests.netns.topology import Hosts, two_hosts

SETTINGS = "mark_mask = 0x0fff0000"  # a thousand classes
PORT = 5000
NAMES_PORT = 53
INTERVAL_S = 0.0005
PLAIN_BYTES = 100
TARGET_S = {10: 0.050, 1000: 0.500}
MATCHES = {
    "port": lambda number: f"remote_port = [{PORT + number}]",
    "program": lambda number: f'program = ["{"python3" if number == 0 else f"prog{number}"}"]',
}


def policies(count: int, kind: str, state: str) -> str:
    """The first is about the sender's datagrams, and has the state; the others are in the way."""
    texts = []
    for number in range(count):
        lines = [f"[policy.p{number}]", f'match = {{ protocol = "udp", {MATCHES[kind](number)} }}']
        lines += [
            'chain = [ { module = "tag", id = "x" } ]',
            f'state = "{state if number == 0 else "active"}"',
        ]
        texts.append("\n".join(lines))
    return "\n".join(texts)


@contextlib.contextmanager
def stream(hosts: Hosts) -> Iterator[socket.socket]:
    """Datagrams from a to b while the context lasts; the receiving socket."""
    ended = threading.Event()
    with (
        hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind((hosts.b.ipv4, PORT))
        receiver.settimeout(5)

        def send() -> None:
            while not ended.wait(INTERVAL_S):
                sender.sendto(b"x" * PLAIN_BYTES, (hosts.b.ipv4, PORT))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield receiver
        finally:
            ended.set()
            thread.join()


def first_change(receiver: socket.socket, begun: float, customized: bool) -> float:
    """Seconds from `begun` to the first datagram that is customized, or is not."""
    while (len(receiver.recv(2000)) != PLAIN_BYTES) != customized:
        pass
    return time.monotonic() - begun


def switch(daemon: Daemon, receiver: socket.socket, text: str, customized: bool) -> tuple[float, float]:
    """The change and its acknowledgement, in seconds."""
    daemon.configure(text)
    answered: list[float] = []

    def command() -> None:
        ask(daemon.socket, Reload(), daemon.directory)
        answered.append(time.monotonic())

    begun = time.monotonic()
    client = threading.Thread(target=command)
    client.start()
    changed = first_change(receiver, begun, customized)
    client.join()
    return changed, answered[0] - begun


def measure_reload(hosts: Hosts, count: int, kind: str, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds to the first customized datagram, and to the acknowledgement, once a round."""
    changes, answers = [], []
    with running(hosts.a, policies(count, kind, "standby"), SETTINGS) as daemon, stream(hosts) as receiver:
        for _ in range(rounds):
            changed, answered = switch(daemon, receiver, policies(count, kind, "active"), True)
            changes.append(changed * 1000)
            answers.append(answered * 1000)
            switch(daemon, receiver, policies(count, kind, "standby"), False)
    return changes, answers


def measure_names(hosts: Hosts, queries: int) -> int:
    """How many queries of that many digs had a tag."""
    policy = '[policy.names]\nmatch = { protocol = "udp", program = "dig" }\nchain = [ { module = "tag", id = "x" } ]\n'
    tagged = 0
    words = ["dig", f"@{hosts.b.ipv4}", "+time=1", "+tries=1", "+retry=0", "a.name.test"]
    with running(hosts.a, policy), hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as responder:
        responder.bind((hosts.b.ipv4, NAMES_PORT))
        responder.settimeout(5)
        for _ in range(queries):
            process = hosts.a.popen(words)
            query, asker = responder.recvfrom(2000)
            tagged += b"L45" in query or len(query) > 100
            responder.sendto(query[:2] + bytes([query[2] | 0x80]) + query[3:], asker)
            if process.wait(10):
                raise lab.BenchmarkError(f"dig ended with {process.returncode}")
    return tagged


def main() -> None:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(prog="python -m perf.loader")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--policies", type=int, nargs="+", default=list(TARGET_S))
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    samples: dict[str, list[float]] = {}
    with two_hosts() as hosts:
        for count in options.policies:
            for kind in MATCHES:
                name = f"{count} policies by {kind}"
                samples[name], answers = measure_reload(hosts, count, kind, options.rounds)
                figures[name] = {"first": record.summary(samples[name]), "answer": record.summary(answers)}
                print(f"{name}: {figures[name]['first']['median']:.1f} ms to the first, "
                      f"{figures[name]['answer']['median']:.1f} ms to the answer", flush=True)  # fmt: skip
        tagged = measure_names(hosts, options.queries)
    print(f"dig by name: {tagged} of {options.queries} first packets customized")
    record.write(
        "loader",
        "how soon a reload is on the wire, and whether fresh programs are customized from their first packet",
        {"figures": figures, "samples": samples, "names": {"queries": options.queries, "tagged": tagged},
         "targets_ms": {str(count): 1000 * target for count, target in TARGET_S.items()}},
    )  # fmt: skip
    record.plot("loader", "from a reload to the first customized packet", "ms", samples)


if __name__ == "__main__":
    main()
