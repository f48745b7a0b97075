"""A container: network, mount, cgroup and pid namespaces of its own. The host's daemon leaves it alone.

a: the host, and its daemon ──▶ wire ──▶ b: the container, and a daemon of its own
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from layer45.rules import cgroups

from .actors import Actor, Sink, interpreter
from .daemons import assert_balanced, running
from .live_daemon import live_daemon
from .owned_sockets import new_cgroups
from .streams import engine, stats
from .topology import Host, Hosts

pytestmark = pytest.mark.root

# In a cgroup, as a container runtime does: $0 is the mount of the tree, $1 the container's cgroup.
ENTER = """
echo $$ > "$0/$1/cgroup.procs"; shift
exec unshare --mount --cgroup sh -c 'umount "$0"; mount -t cgroup2 none "$0"; exec "$@"' "$0" "$@"
"""
OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
MATCH = 'match = { protocol = "udp", program = "phone" }'
POLICY = f'[policy.phone]\n{MATCH}\nchain = [ {{ module = "tag", id = "x" }} ]\n'
SEND = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'datagram', {})"


@dataclass
class Container(Host):
    """A host whose programs are in a cgroup and mount namespace of their own, too."""

    cgroup: str = ""

    def inside(self, argv: Sequence[str]) -> list[str]:
        """As Host.inside."""
        return super().inside(["sh", "-c", ENTER, str(cgroups.mount_point()), self.cgroup, *argv])


def is_customized(sink: Sink, phone: Actor) -> bool:
    """Whether what it sends has a tag."""
    phone.do(SEND.format(sink.address))
    said = sink.hear()
    assert said.startswith(b"datagram")
    return said[8:9] == b"x"


def test_host_and_container_do_not_meet(hosts: Hosts, tmp_path: Path) -> None:
    """Each daemon has the programs of its own network namespace, under the same configuration."""
    executable = interpreter(tmp_path, "phone")
    with new_cgroups("box") as (box,), Sink(hosts.a) as at_host, Sink(hosts.b) as at_box:
        b = hosts.b
        box_host = Container(b.name, b.ipv4, b.ipv6, b.mac, started=b.started, cgroup=box)
        with (
            running(hosts.a, POLICY) as host,
            Actor(hosts.a, executable) as outside,
            Actor(box_host, executable, OWN_PIDS) as inside,
        ):
            assert inside.do("print(os.getpid())") == "1"
            assert not is_customized(at_host, inside) and is_customized(at_box, outside)
            assert engine(host)["received"] == 1
            with running(box_host, POLICY) as container:
                assert is_customized(at_host, inside) and is_customized(at_box, outside)
                assert engine(host)["received"] == 2 and engine(container)["received"] == 1
                for daemon in (host, container):
                    assert_balanced(stats(daemon))
            assert not is_customized(at_host, inside) and is_customized(at_box, outside)


def test_a_container_without_a_cgroup_tree_of_its_own(hosts: Hosts, tmp_path: Path) -> None:
    """One line says what to do: rules' paths would begin elsewhere than those that are seen."""
    policies = POLICY + '[policy.service]\npriority = 1\nmatch = { cgroup = "web.service" }\n'
    with new_cgroups("box") as (box,), live_daemon(hosts.a, tmp_path / "a", policies) as daemon:
        tree = str(cgroups.mount_point())
        script = ENTER.replace('umount "$0"; mount -t cgroup2 none "$0"; ', "")
        done = hosts.a.run(["sh", "-c", script, tree, box, *daemon.command("run")], check=False)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert f"{tree} does not show the cgroups of this cgroup namespace; expected its root" in done.stderr
