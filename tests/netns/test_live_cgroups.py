"""Cgroups that policies name come and go, as services do: whoever is in the new one is customized.

a: programs in cgroups ── tag ──▶ wire ──▶ b: what came
"""

from pathlib import Path

import pytest

from layer45.rules import cgroups

from .actors import Actor, Sink, interpreter
from .daemons import Daemon, eventually, running
from .owned_sockets import new_cgroups
from .topology import Hosts

pytestmark = pytest.mark.root

CHAIN = 'chain = [ { module = "tag", id = "x" } ]\n'
SEND = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'datagram', {})"


def of_cgroup(path: str, more: str = "") -> str:
    return f'[policy.service]\nmatch = {{ protocol = "udp", cgroup = ["{path}"]{more} }}\n{CHAIN}'


def is_customized(sink: Sink, program: Actor) -> bool:
    """Whether what it sends now, from a new socket, has a tag."""
    program.do(SEND.format(sink.address))
    said = sink.hear()
    assert said.startswith(b"datagram")
    return said[8:9] == b"x"


def enter(path: str, program: Actor) -> None:
    """As a service manager puts a process into its service's cgroup."""
    (cgroups.mount_point() / path / "cgroup.procs").write_text(str(program.pid))


def found_anew(daemon: Daemon, times: int) -> None:
    """Until it has."""
    eventually(lambda: daemon.log.read_text().count('event="cgroups were found anew"') == times, 5)


def test_a_service_that_is_not_there_comes_ends_and_comes_again(hosts: Hosts, tmp_path: Path) -> None:
    """The daemon starts without it, with a warning; and the new cgroup is not the old one to the kernel."""
    with new_cgroups() as _, new_cgroups("service") as (path,), Sink(hosts.b) as sink:
        directory = cgroups.mount_point() / path
        directory.rmdir()
        with (
            running(hosts.a, of_cgroup(path)) as a,
            Actor(hosts.a, interpreter(tmp_path, "server")) as server,
        ):
            assert f'event="cgroups that policies name are missing" paths={path}' in a.log.read_text()
            line = f"cgroup {path}: is not there now, so nobody is in it"
            assert line in a.ask("status")["warnings"]
            assert not is_customized(sink, server)
            for times in (1, 3):
                directory.mkdir()
                found_anew(a, times)
                enter(path, server)
                assert is_customized(sink, server)
                enter(str(Path(path).parent), server)
                directory.rmdir()
                found_anew(a, times + 1)
                assert not is_customized(sink, server)
            assert a.ask("status")["generation"] == 1
            assert line in hosts.a.run(a.command("reload")).stderr  # which refuses nothing for it


def test_unless_a_cgroup_that_is_not_there(hosts: Hosts, tmp_path: Path) -> None:
    """Nobody is excepted, until it comes."""
    with new_cgroups("excepted") as (path,), Sink(hosts.b) as sink:
        directory = cgroups.mount_point() / path
        directory.rmdir()
        text = of_cgroup(str(Path(path).parent), f', unless = {{ cgroup = ["{path}"] }}')
        with running(hosts.a, text) as a, Actor(hosts.a, interpreter(tmp_path, "server")) as server:
            enter(str(Path(path).parent), server)
            assert is_customized(sink, server)
            directory.mkdir()
            found_anew(a, 1)
            enter(path, server)
            assert not is_customized(sink, server)


def test_the_cgroup_of_exec_is_taken_away_by_hand(hosts: Hosts, tmp_path: Path) -> None:
    """The next program finds another one, and is customized from its first packet on."""
    with running(hosts.a, f"[policy.voice]\n{CHAIN}") as a, Sink(hosts.b) as sink:
        before = a.command("exec", "voice", "--")
        directory = cgroups.mount_point() / a.cgroup / "voice"
        with Actor(hosts.a, interpreter(tmp_path, "phone"), before) as phone:
            assert is_customized(sink, phone)
            (cgroups.mount_point() / "cgroup.procs").write_text((directory / "cgroup.procs").read_text())
            number = directory.stat().st_ino
            directory.rmdir()
            assert not is_customized(sink, phone)  # it is in no policy's cgroup any more
        with Actor(hosts.a, interpreter(tmp_path, "phone"), before) as phone:
            assert directory.stat().st_ino != number
            assert is_customized(sink, phone)
