"""The demo's program: iperf3 as it comes, twice at the same time, over UDP; once under the policy."""

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from layer45.demo_hosts import ADDRESSES, DemoError, Host, end_of, last_line, wait_until

BITS_PER_S = 20_000_000
DATAGRAM_BYTES = 1200
CUSTOMIZED, PLAIN = 5201, 5202  # ports
PORTS = CUSTOMIZED, PLAIN


@dataclass(frozen=True)
class Flow:
    """What iperf3 reports. missed: the last ones, still under way when its server stopped listening."""

    sent: int
    lost: int
    missed: int
    bits_per_s: float
    jitter_ms: float

    @classmethod
    def of(cls, end: dict[str, Any]) -> "Flow":
        """From the report's end."""
        sent, received = end["sum_sent"]["packets"], end["sum_received"]
        missed = sent - received["packets"]
        return cls(sent, received["lost_packets"], missed, received["bits_per_second"], received["jitter_ms"])


@contextlib.contextmanager
def servers(host: Host) -> Iterator[None]:
    """One at each port."""
    with contextlib.ExitStack() as stack:
        for port in PORTS:
            stack.enter_context(_server(host, port))
        yield


@contextlib.contextmanager
def _server(host: Host, port: int) -> Iterator[None]:
    with host.running("iperf3", "-s", "-p", str(port)) as process:
        wait_until("iperf3 -s", lambda: f":{port} " in host.run("ss", "-Hltn"), process)
        yield


def client(port: int, seconds: int) -> list[str]:
    """UDP, results as JSON."""
    where = "-c", ADDRESSES["b"], "-p", str(port)
    what = "-u", "-b", str(BITS_PER_S), "-l", str(DATAGRAM_BYTES), "-t", str(seconds)
    return ["iperf3", *where, *what, "-J"]


def both_flows(a: Host, seconds: int) -> dict[int, Flow]:
    """Runs the two clients at the same time; what each saw, by port."""
    commands = {port: client(port, seconds) for port in PORTS}
    commands[CUSTOMIZED] = a.layer45("exec", "demo", "--", *commands[CUSTOMIZED])
    outputs = side_by_side(a, commands, seconds + 30)
    return {port: Flow.of(_report(*output)["end"]) for port, output in outputs.items()}


def side_by_side(host: Host, commands: dict[int, list[str]], timeout_s: float) -> dict[int, tuple[str, str]]:
    """Runs commands in a host at the same time; their output and what they had to complain about."""
    with contextlib.ExitStack() as stack:
        running = {}
        for key, words in commands.items():
            running[key] = subprocess.Popen(
                host.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.callback(end_of, running[key], signal.SIGTERM)
        return {key: process.communicate(timeout=timeout_s) for key, process in running.items()}


def _report(output: str, errors: str) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads(output)
    except ValueError:
        raise DemoError(f"iperf3: {last_line(errors or output)}") from None
    if "error" in report:
        raise DemoError(f"iperf3: {report['error']}")
    return report
