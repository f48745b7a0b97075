"""The namespaces themselves: reachable at once, honest about checksums, and gone afterwards."""

import socket
import subprocess
import time

import pytest

from .topology import NAMESPACES, Hosts, two_hosts

pytestmark = pytest.mark.root
FAMILIES = [socket.AF_INET, socket.AF_INET6]


@pytest.mark.parametrize("family", FAMILIES)
def test_hosts_reach_each_other_at_once(hosts: Hosts, family: int) -> None:
    with hosts.a.socket(family, socket.SOCK_DGRAM) as a, hosts.b.socket(family, socket.SOCK_DGRAM) as b:
        b.bind((hosts.b.address(family), 5004))
        b.settimeout(2)
        a.sendto(b"hello", (hosts.b.address(family), 5004))
        assert b.recvfrom(100)[0] == b"hello"


@pytest.mark.parametrize("family", FAMILIES)
def test_bad_checksum_is_counted(hosts: Hosts, family: int) -> None:
    kind = "udp6" if family == socket.AF_INET6 else "udp4"
    with hosts.a.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw, \
         hosts.b.socket(family, socket.SOCK_DGRAM) as server:  # fmt: skip
        server.bind(("", 5004))
        raw.sendto(bytes.fromhex("1388138c000a dead 0102"), (hosts.b.address(family), 0))
        deadline = time.monotonic() + 2
        while not hosts.b.checksum_errors()[kind] and time.monotonic() < deadline:
            time.sleep(0.02)
    assert hosts.b.checksum_errors() == {"udp4": 0, "tcp": 0, "udp6": 0} | {kind: 1}


def test_capture_sees_the_wire(hosts: Hosts) -> None:
    with hosts.b.capture("udp port 5004") as capture, hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as a:
        a.sendto(b"hello", (hosts.b.ipv4, 5004))
    assert [bytes(p["UDP"].payload) for p in capture.packets()] == [b"hello"]


def test_offloads_can_be_turned_off(hosts: Hosts) -> None:
    hosts.a.set_offloads(False)
    with hosts.b.capture("udp") as capture, hosts.a.socket(socket.AF_INET, socket.SOCK_DGRAM) as a:
        a.sendto(b"x" * 50, (hosts.b.ipv4, 5004))
    packet = capture.packets()[0]
    sent = packet["UDP"].chksum
    del packet["UDP"].chksum
    assert packet.__class__(bytes(packet))["UDP"].chksum == sent


def test_nothing_is_left_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), two_hosts() as hosts:
        process = hosts.a.popen(["sh", "-c", "sleep 1000 & sleep 1000"])
        raise ZeroDivisionError
    assert process.poll() is not None
    assert not any((NAMESPACES / host.name).exists() for host in hosts)
    assert subprocess.run(["ip", "netns", "pids", hosts.a.name], capture_output=True).returncode != 0
