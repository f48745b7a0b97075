"""`load = [...]`: folders and one line are enough; a socket gets every module whose match it fits, in order.

host a: daemon, a sender  ───>  host b: a receiver without any policy, which sees what was done
"""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .live_daemon import LAYER45, LiveDaemon, live_daemon
from .topology import Hosts

pytestmark = pytest.mark.root

MODULES = {  # name -> ports it is for; its name stands behind the payloads of theirs
    "every": '["5000-5003"]',
    "first": "[5000]",
    "also": "[5000]",
    "other": "[5002]",
}
OWN = """
[policy.own]
match = { protocol = "udp", remote_port = [5000] }
chain = [ { module = "tag", id = "own" } ]
"""


@pytest.fixture
def daemon(hosts: Hosts, tmp_path: Path) -> Iterator[LiveDaemon]:
    """Its site has the modules, and no policy names them."""
    site = tmp_path / "site"
    with live_daemon(hosts.a, tmp_path / "a", "") as made:
        for name, ports in MODULES.items():
            words = ["modules", "new", name, "--language", "python", "--directory", str(site)]
            hosts.a.run([*LAYER45, *words])
            manifest = site / name / "module.toml"
            match = f'\n[match]\nprotocol = "udp"\nremote_port = {ports}\n'
            manifest.write_text(manifest.read_text() + match)
        made.settings(module_dirs=[str(site)], load=["also", "every", "first", "other"])
        yield made


def arrives(hosts: Hosts, port: int) -> bytes:
    """What the receiver gets of a datagram `-` to a port, from a new socket."""
    with (
        hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind((hosts.b.ipv4, port))
        receiver.settimeout(3)
        sender.sendto(b"-", (hosts.b.ipv4, port))
        return receiver.recv(2048)


def test_modules_act_together_on_a_socket(daemon: LiveDaemon, hosts: Hosts) -> None:
    daemon.start()
    told = {each["name"]: each["chain"] for each in daemon.json("status")["policies"]}
    assert told == {"also": ["also", "every", "first"], "other": ["every", "other"], "every": ["every"]}
    assert arrives(hosts, 5000) == b"-alsoeveryfirst"
    assert arrives(hosts, 5001) == b"-every"
    assert arrives(hosts, 5002) == b"-everyother"
    assert arrives(hosts, 5004) == b"-"

    daemon.policies(OWN)
    daemon.settings(module_dirs=[str(daemon.directory.parent / "site")], load=["other"])
    daemon.layer45("reload")
    assert b"own" in arrives(hosts, 5000)
    assert arrives(hosts, 5001) == b"-"
    assert arrives(hosts, 5002) == b"-other"

    daemon.layer45("deactivate", "other")
    assert arrives(hosts, 5002) == b"-"
    assert daemon.end() == 0
