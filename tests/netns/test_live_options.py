"""option_tag on the wire: every segment has its identity and fits, whoever cuts it; strangers get SYNs only.

a: curl ── chain ──▶ wire ──▶ chain ── b: lighttpd
"""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from layer45.modules.option_tag.reference import find

from .daemons import (
    Daemon,
    Service,
    assert_balanced,
    assert_no_checksum_errors,
    client_side,
    eventually,
    running,
    server_side,
)
from .datagrams import FAMILIES
from .topology import Host, Hosts

pytestmark = pytest.mark.root

PORT, MTU, SYN = 8080, 1500, 2
EXID, LENGTH = 0x4C54, 8
FILE_BYTES = 5_000_000
ON_ALL = '{ module = "option_tag", on = "all", id = "HOST", expect = "PEER", unmarked = "drop" }'
ON_SYN = '{ module = "option_tag", id = "HOST", expect = "PEER", unmarked = "drop" }'
OPEN_ALL = '{ module = "option_tag", on = "all", id = "HOST" }'
OPEN_SYN = '{ module = "option_tag", id = "HOST" }'


def named(chain: str, host: str, peer: str) -> str:
    return chain.replace("HOST", host).replace("PEER", peer)


def web(chain: str) -> Service:
    return Service("web", PORT, named(chain, "a", "b"), protocol="tcp", server_chain=named(chain, "b", "a"))


class Segment(NamedTuple):
    """What was on the wire."""

    from_a: bool
    is_syn: bool
    identity: bytes | None
    ip_bytes: int


def segments(packets: list[Any]) -> list[Segment]:
    return [_segment(packet) for packet in packets]


def _segment(packet: Any) -> Segment:
    from scapy.layers.inet import TCP

    ip, tcp = packet.payload, packet[TCP]
    header = bytes(tcp)[20 : tcp.dataofs * 4]
    found = find(header, 253, EXID)
    length = ip.len if ip.version == 4 else 40 + ip.plen
    return Segment(tcp.dport == PORT, bool(int(tcp.flags) & SYN), found and found[1], length)


@contextmanager
def serving(host: Host, root: Path) -> Iterator[Path]:
    """lighttpd with one file."""
    file = root / "file"
    file.write_bytes(b"".join(b"%09d\n" % number for number in range(FILE_BYTES // 10)))
    settings = f'server.document-root = "{root}"\nserver.port = {PORT}\nserver.bind = "0.0.0.0"\n'
    (root / "lighttpd.conf").write_text(f'{settings}$SERVER["socket"] == "[::]:{PORT}" {{ }}\n')
    server = host.popen(["lighttpd", "-D", "-f", str(root / "lighttpd.conf")])
    eventually(lambda: host.run(["ss", "-Hln", "--tcp", "sport", "=", str(PORT)]).stdout, 5)
    yield file
    server.terminate()
    server.wait(5)


def fetch(hosts: Hosts, family: int, file: Path, fails: bool = False) -> list[Segment]:
    """curl gets the file, or fails; what was on the wire meanwhile."""
    address = hosts.b.address(family)
    host = f"[{address}]" if family == socket.AF_INET6 else address
    got = file.with_name("got")
    got.unlink(missing_ok=True)
    curl = ["curl", "--silent", "--fail", "--max-time", "3" if fails else "30", "--output", str(got)]
    with hosts.b.capture(f"tcp port {PORT}") as capture:
        done = hosts.a.run([*curl, f"http://{host}:{PORT}/file"], check=False)
    assert (done.returncode != 0) == fails, done
    if not fails:
        assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(file.read_bytes()).digest()
    return segments(capture.packets())


@contextmanager
def daemons(hosts: Hosts, service: Service) -> Iterator[tuple[Daemon, Daemon]]:
    with running(hosts.a, client_side([service])) as a, running(hosts.b, server_side([service])) as b:
        yield a, b
        for daemon in (a, b):
            assert_balanced(daemon.stats())
        assert_no_checksum_errors(*hosts)


@pytest.mark.parametrize("cut_by", ["wire", "kernel"])
@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_every_segment_has_it_and_fits(hosts: Hosts, tmp_path: Path, family: int, cut_by: str) -> None:
    """Without offloads the kernel cuts super-packets behind the queue: each piece has the option."""
    for host in hosts:
        host.set_offloads(cut_by == "wire")
    with daemons(hosts, web(ON_ALL)) as (a, b), serving(hosts.b, tmp_path) as file:
        wire = fetch(hosts, family, file)
        assert len(wire) > (20 if cut_by == "wire" else FILE_BYTES // MTU)
        assert {(each.from_a, each.identity) for each in wire} == {
            (True, b"a".ljust(LENGTH, b"\0")),
            (False, b"b".ljust(LENGTH, b"\0")),
        }
        if cut_by == "kernel":
            assert max(each.ip_bytes for each in wire) in range(MTU - 4, MTU + 1)
            web_counters = b.policy("web")
            assert web_counters["egress_bytes"] > 2 * MTU * web_counters["egress_packets"]
        for daemon in (a, b):
            counters = daemon.counters("web", "option_tag")
            assert counters["tagged"] and counters["stripped"]
            assert not counters["unmarked"] and not counters["wrong_identity"]
            assert daemon.engine()["connections_customized"] == 1


@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_on_syn_only_syns_have_it(hosts: Hosts, tmp_path: Path, family: int) -> None:
    with daemons(hosts, web(ON_SYN)) as (a, b), serving(hosts.b, tmp_path) as file:
        wire = fetch(hosts, family, file)
        assert [each.identity is not None for each in wire] == [each.is_syn for each in wire]
        for daemon in (a, b):
            assert daemon.counters("web", "option_tag") == {
                "tagged": 1, "stripped": 1, "no_room": 0, "unmarked": 0, "wrong_identity": 0,
            }  # fmt: skip


@pytest.mark.parametrize("chain", [OPEN_SYN, OPEN_ALL], ids=["syn", "all"])
@pytest.mark.parametrize("customized", ["a", "b"])
def test_a_peer_without_the_policy_sees_it_in_syns_only(
    hosts: Hosts, tmp_path: Path, customized: str, chain: str
) -> None:
    host, policies = (
        (hosts.a, client_side([web(chain)])) if customized == "a" else (hosts.b, server_side([web(chain)]))
    )
    with running(host, policies) as daemon, serving(hosts.b, tmp_path) as file:
        for family in FAMILIES:
            wire = fetch(hosts, family, file)
            assert {each.from_a for each in wire if each.identity} == {customized == "a"}
            assert all(each.is_syn for each in wire if each.identity)
        assert daemon.engine()["connections_alone"] == 2
        assert_balanced(daemon.stats())
    assert_no_checksum_errors(*hosts)


def test_whoever_has_no_name_or_another_is_not_answered(hosts: Hosts, tmp_path: Path) -> None:
    with running(hosts.b, server_side([web(ON_ALL)])) as b, serving(hosts.b, tmp_path) as file:
        wire = fetch(hosts, socket.AF_INET, file, fails=True)
        assert all(each.from_a for each in wire)
        assert b.counters("web", "option_tag")["unmarked"] >= 1
        with running(hosts.a, client_side([web(ON_ALL)]).replace('id = "a"', 'id = "x"')):
            wire = fetch(hosts, socket.AF_INET, file, fails=True)
        assert all(each.from_a for each in wire)
        assert b.counters("web", "option_tag")["wrong_identity"] >= 1
