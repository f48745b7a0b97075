"""A host that lets nobody make BPF maps or programs: no memory may be locked, or there is no right to.

a: a daemon without CAP_BPF, and programs ── tag ──▶ wire ──▶ b: what came
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from .actors import Actor, Sink, interpreter
from .daemons import running
from .live_daemon import live_daemon
from .topology import Host, Hosts

pytestmark = pytest.mark.root

WITHOUT = ("setpriv", "--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin")
CHAIN = 'chain = [ { module = "tag", id = "x" } ]\n'
POLICIES = (
    f'[policy.name]\npriority = 1\nmatch = {{ protocol = "udp", program = "phone" }}\n{CHAIN}'
    f'[policy.port]\nmatch = {{ protocol = "udp", remote_port = 7001 }}\n{CHAIN}'
)
STREAM = '[policy.web]\nmatch = { protocol = "tcp" }\nchain = [ { module = "stream_tag", id = "x" } ]\n'
SEND = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'datagram', {})"


@dataclass
class Bare(Host):
    """A host whose programs have no right to use BPF."""

    def inside(self, argv: Sequence[str]) -> list[str]:
        """As Host.inside."""
        return super().inside([*WITHOUT, *argv])


def bare(host: Host) -> Bare:
    return Bare(host.name, host.ipv4, host.ipv6, host.mac, started=host.started)


def test_programs_are_not_told_but_all_other_rules_work(hosts: Hosts, tmp_path: Path) -> None:
    """One warning, which `status` shows, too."""
    with (
        running(bare(hosts.a), POLICIES) as a,
        Actor(hosts.a, interpreter(tmp_path, "phone")) as phone,
        Sink(hosts.b) as sink,
        Sink(hosts.b, 7002) as other,
    ):
        for end, tag in ((sink, b"x"), (other, b"")):
            phone.do(SEND.format(end.address))
            assert end.hear()[8:9] == tag
        reason = "sockets are not tagged: cannot load the BPF program: Operation not permitted"
        assert a.ask("status")["tagger"] == {"on": False, "reason": reason}
        assert a.log.read_text().count("level=warning") == 1


def test_chains_that_change_streams_are_refused(hosts: Hosts, tmp_path: Path) -> None:
    """They cannot work without the map of known connections: one line, and nothing is left."""
    with live_daemon(bare(hosts.a), tmp_path / "a", STREAM) as daemon:
        said = daemon.layer45("run", status=1).splitlines()
        assert len(said) == 1 and "Operation not permitted" in said[0]
        assert daemon.cgroups() == []
