"""What tests of copies share: a policy that classifies, who reads what in the kernel, and programs."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from .daemons import Daemon, eventually
from .topology import Capture, Host

CLASSIFY = '{ module = "classify", bypass = false }'
WATCH = f"[policy.watch]\nmatch = {{}}\nchain = [ {CLASSIFY} ]\n"
FLUSHED_S = 0.05  # the kernel keeps copies for 10 ms at most
NAMES = 5353  # a port


def listening(host: Host, kind: str) -> list[int]:
    """Numbers that somebody reads: of "queue" or of "log"."""
    listing = host.run(["cat", f"/proc/net/netfilter/nfnetlink_{kind}"]).stdout
    return [int(line.split()[0]) for line in listing.splitlines()]


def counted(daemon: Daemon, policy: str = "watch") -> dict[str, int]:
    """What module classify has counted, but for what is 0."""
    return {name: value for name, value in daemon.counters(policy, "classify").items() if value}


def seen(daemon: Daemon, policy: str = "watch") -> tuple[int, int]:
    """Packets and bytes of the policy, as the engine had them."""
    time.sleep(FLUSHED_S)
    found = daemon.policy(policy)
    return found["packets"], found["bytes"]


def on_the_wire(capture: Capture) -> tuple[int, int]:
    """Packets of UDP and TCP, and their IP lengths."""
    packets = [each for each in capture.packets() if UDP in each or TCP in each]
    return len(packets), sum(each[IP].len if IP in each else each[IPv6].plen + 40 for each in packets)


def queues(daemon: Daemon) -> list[dict[str, Any]]:
    """As status has them."""
    return list(daemon.ask("status")["queues"])


@contextlib.contextmanager
def name_server(host: Host) -> Iterator[None]:
    """dnsmasq, on NAMES of both transports; it knows printer.example."""
    words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--no-hosts",
        "--no-resolv",
        "--conf-file=/dev/null",
        "--pid-file=",
    ]
    words += [f"--port={NAMES}", "--address=/printer.example/192.0.2.7", "--user=root"]
    server = host.popen(words, stderr=subprocess.DEVNULL)
    eventually(lambda: f":{NAMES}" in host.run(["ss", "-lnut"]).stdout)
    yield
    server.terminate()
    server.wait(5)


def dig(host: Host, server: str, *words: str) -> str:
    """The answer."""
    argv = ["dig", "+short", "+tries=1", "+time=5", "-p", str(NAMES), f"@{server}", *words, "printer.example"]
    return str(host.run(argv).stdout).strip()


LOOKING = """
[module]
name = "{name}"
version = "1.0.0"
abi = 1
kind = "segment"
language = "python"
summary = "Looks"
inverse = "none"
transports = ["udp", "tcp"]
directions = ["egress", "ingress"]
reads = "payload"
gso = true
looks_only = true
[counter.bytes]
help = "payload seen"
"""


def write_looking(directory: Path, name: str, body: str) -> str:
    """A module in Python that only looks, body says at what; the settings line by which a daemon finds it."""
    folder = directory / name
    folder.mkdir(exist_ok=True)
    (folder / "module.toml").write_text(LOOKING.format(name=name))
    (folder / f"{name}.py").write_text(
        "class Module:\n    def __init__(self, parameters, count):\n        self.count = count\n\n"
        f"    def egress(self, packet):\n        {body}\n\n    ingress = egress\n"
    )
    return f'module_dirs = ["{directory}"]'
