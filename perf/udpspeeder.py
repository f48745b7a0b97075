"""UDPspeeder as a Way: its client on host a, its server on host b.

    sender -> lo -> client -> veth -> server -> lo -> receiver

It is a program of others (github.com/wangyu-/UDPspeeder), found by the name or path one gives.
"""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from perf import lab, udp_load
from tests.netns.topology import Host, Hosts

CLIENT_PORT = 9100
SERVER_PORT = 9200
LOCAL = "127.0.0.1"


def version(program: str) -> str:
    """The commit it was built from, as it says itself."""
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"git version: (\w+)", text)
    return found[1] if found else "unknown"


@contextlib.contextmanager
def tunnel(program: str, options: Sequence[str], hosts: Hosts) -> Iterator[udp_load.Way]:
    """Both processes, listening."""
    server = ["-s", f"-l0.0.0.0:{SERVER_PORT}", f"-r{LOCAL}:{lab.PORT}", *options]
    client = ["-c", f"-l{LOCAL}:{CLIENT_PORT}", f"-r{hosts.b.ipv4}:{SERVER_PORT}", *options]
    with (
        _running(hosts.b, [program, *server], SERVER_PORT) as far,
        _running(hosts.a, [program, *client], CLIENT_PORT) as near,
    ):
        yield udp_load.Way(LOCAL, CLIENT_PORT, [near.pid, far.pid])


@contextlib.contextmanager
def _running(host: Host, words: list[str], port: int) -> Iterator[subprocess.Popen[Any]]:
    process = host.popen(words, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    try:
        lab.wait_for_ports(host, (port,), process)
        yield process
    finally:
        process.kill()
        process.wait()
