"""Sockets of a process, borrowed and tagged; the kernel's list of sockets, and who has them."""

import os
import socket
import struct
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from layer45.rules import processes, socket_list, socket_owners
from layer45.rules.diversion import MarkLayout
from layer45.rules.errors import RulesError
from layer45.rules.process_sockets import Process, tag_sockets

from .daemons import eventually
from .topology import Hosts

pytestmark = pytest.mark.root

MARKS = MarkLayout(0x10FF, 0x2000)
MANY = 900  # more than the kernel puts into one answer


def mark(each: socket.socket) -> int:
    return each.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_all_or_none(hosts: Hosts) -> None:
    """The second is closed when its turn comes: the first has its old mark again, other bits and ours."""
    first, second = (hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x50001)
        tag_sockets([first], MARKS, 0x1FF)
        assert mark(first) == 0x510FF
        tag_sockets([first], MARKS, 2)
        second.close()
        with pytest.raises(RulesError, match="a socket's mark cannot be set: Bad file descriptor"):
            tag_sockets([first, second], MARKS, 7)
        assert mark(first) == 0x50002


def test_only_tcp_and_udp_over_ip_each_once(hosts: Hosts) -> None:
    kinds = [
        (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_INET6, socket.SOCK_STREAM),
        (socket.AF_INET, socket.SOCK_RAW), (socket.AF_UNIX, socket.SOCK_STREAM),
    ]  # fmt: skip
    protocols = [0, 0, socket.IPPROTO_UDP, 0]
    made = [hosts.a.socket(*kind, protocol) for kind, protocol in zip(kinds, protocols, strict=True)]
    there = hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM)
    copies = [os.dup(made[0].fileno()) for _ in range(3)]
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE,
        pass_fds=[*(each.fileno() for each in made), there.fileno(), *copies],
    )  # fmt: skip
    process = Process(child.pid)
    try:
        with hosts.a.entered(), process.sockets() as found:
            assert {(each.family, each.type) for each in found.here} == set(kinds[:2])
            assert (len(found.here), found.elsewhere, found.connections) == (2, 1, 0)
            tag_sockets(found.here, MARKS, 3)
        assert [mark(each) for each in (*made[:3], there)] == [3, 3, 0, 0]
    finally:
        child.communicate(b"\n")
        for each in (*made, there):
            each.close()
        for copy in copies:
            os.close(copy)
    with pytest.raises(RulesError, match=f"there is no process {child.pid}"):
        process.owner()
    with pytest.raises(RulesError, match=f"process {child.pid} has ended"), process.sockets():
        pass
    process.close()
    with pytest.raises(RulesError, match=f"there is no process {child.pid}"):
        Process(child.pid)


def test_a_process_that_ends_at_any_moment(hosts: Hosts) -> None:
    """Whatever is read of it meanwhile: sockets, or one clear error. No descriptor is left behind."""
    before, outcomes = descriptors(), set[str]()
    for wait in range(60):
        text = f"import socket, time; s = socket.socket(); time.sleep({wait % 20 / 2000})"
        child = subprocess.Popen([sys.executable, "-S", "-c", text])
        try:
            while child.poll() is None:
                process = Process(child.pid)
                try:
                    process.owner()
                    with process.sockets() as found:
                        tag_sockets(found.here, MARKS, 1)
                        outcomes.add("tagged" if found.here else "none yet")
                finally:
                    process.close()
        except RulesError as error:
            outcomes.add(str(error).replace(str(child.pid), "N"))
        child.wait()
    assert {"tagged"} < outcomes
    assert outcomes <= {"tagged", "none yet", "process N has ended", "there is no process N"}
    assert descriptors() == before


def test_the_kernels_list(hosts: Hosts) -> None:
    """Families, marks, states, more than one answer's worth; none of another namespace, none of TIME_WAIT."""
    both, six, mapped, four = (
        hosts.a.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET6,) * 3 + (socket.AF_INET,)
    )
    six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    for port, each in enumerate((both, six), 6001):
        each.bind(("::", port))
    mapped.connect((f"::ffff:{hosts.b.ipv4}", 6003))
    four.bind((hosts.a.ipv4, 6004))
    four.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", 0xF0000001))
    there = hosts.b.socket(socket.AF_INET, socket.SOCK_DGRAM)
    there.bind(("0.0.0.0", 6005))
    many = [hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(MANY)]
    try:
        for each in many:
            each.connect((hosts.b.ipv4, 6006))
        with hosts.a.entered():
            found = {each.inode: each for each in socket_list.sockets()}
            held = {each.socket.inode: each for each in socket_owners.held(list(found.values()))}
        seen = [found[os.fstat(each.fileno()).st_ino] for each in (both, six, mapped, four)]
        assert [(each.local, each.local_port, set(each.families)) for each in seen[:2]] == [
            (None, 6001, {4, 6}), (None, 6002, {6})
        ]  # fmt: skip
        assert (seen[2].remote, seen[2].remote_port, set(seen[2].families)) == (
            ip_address(hosts.b.ipv4),
            6003,
            {4},
        )
        assert (seen[2].state, seen[3].state, seen[3].mark) == ("connected", "open", 0xF0000001)
        assert len(found) == 4 + len(many) and all(each.protocol == "udp" for each in found.values())
        mine = processes.owner(os.getpid())
        assert all((each.pids, each.owner, each.group) == ((mine.pid,), mine, 0) for each in held.values())
    finally:
        for each in (both, six, mapped, four, there, *many):
            each.close()


def test_time_wait_has_no_owner_and_is_not_listed(hosts: Hosts) -> None:
    with hosts.a.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((hosts.a.ipv4, 6007))
        listener.listen()
        client = hosts.a.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.connect((hosts.a.ipv4, 6007))
        listener.accept()[0].close()
        client.close()
        eventually(lambda: "TIME-WAIT" in hosts.a.run(["ss", "-Htan"]).stdout)
        with hosts.a.entered():
            assert [(each.protocol, each.state) for each in socket_list.sockets()] == [("tcp", "listening")]
