"""Programs matched by name or executable alone: their first packet is customized, and nobody else's.

a: programs ── chain ──▶ wire ──▶ chain ── b: a responder, matched by its own executable
"""

import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .daemons import Daemon, assert_balanced, assert_no_checksum_errors, eventually, running
from .datagrams import FAMILIES
from .topology import Host, Hosts

pytestmark = pytest.mark.root

TAG = '{ module = "tag", id = "by name", unmarked = "drop" }'
QUERIES = 150  # of each family
RESPONDER = """
import select, socket, sys
ends = []
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    end = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    end.bind((address, int(sys.argv[1])))
    ends.append(end)
while True:
    for end in select.select(ends, [], [])[0]:
        query, sender = end.recvfrom(4096)
        end.sendto(query[:2] + bytes([query[2] | 0x80]) + query[3:], sender)
"""
PROBE = """
import socket, sys
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end.settimeout(float(sys.argv[2]))
end.sendto(b"id\\0\\0 a question", (sys.argv[1], 5300))
print(end.recv(100)[4:].decode())
"""


def _policy(programs: list[Path | str]) -> str:
    names = ", ".join(f'"{each}"' for each in programs)
    match = f'{{ protocol = "udp", program = [{names}] }}'
    return f"[policy.names]\nmatch = {match}\nchain = [ {TAG} ]\n"


def _program(directory: Path, name: str) -> Path:
    """An interpreter that is a program of its own."""
    return Path(shutil.copy(Path(sys.executable).resolve(), directory / name))


@contextmanager
def _responder(host: Host, executable: Path, port: int) -> Iterator[None]:
    process = host.popen([str(executable), "-c", RESPONDER, str(port)])
    try:
        eventually(lambda: host.run(["ss", "-Hln", "--udp", "sport", "=", str(port)]).stdout, 5)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _hosts(hosts: Hosts, programs: list[Path | str], server: Path, port: int) -> Iterator[list[Daemon]]:
    """The responder begins when its host's daemon runs: nothing but its executable tells who it is."""
    with running(hosts.a, _policy(programs)) as a, running(hosts.b, _policy([server])) as b:
        with _responder(hosts.b, server, port):
            yield [a, b]
        for daemon in (a, b):
            assert_balanced(daemon.stats())
        assert_no_checksum_errors(*hosts)


def _tagged(daemon: Daemon) -> tuple[int, int]:
    counters = daemon.counters("names", "tag")
    assert counters["unmarked"] == 0
    return counters["tagged"], counters["stripped"]


def test_every_dig_from_its_first_packet(hosts: Hosts, tmp_path: Path) -> None:
    """A process that makes one socket in one of its threads, sends one datagram, and is gone."""
    with _hosts(hosts, ["dig"], _program(tmp_path, "dnsd"), 53) as daemons:
        for family in FAMILIES:
            words = ["+time=2", "+tries=1", "some.name.test"]
            for _ in range(QUERIES):
                said = hosts.a.run(["dig", f"@{hosts.b.address(family)}", *words]).stdout
                assert "status: NOERROR" in said, (
                    family,
                    said,
                    [d.counters("names", "tag") for d in daemons],
                )
        assert [_tagged(each) for each in daemons] == [(2 * QUERIES, 2 * QUERIES)] * 2


def test_one_executable_and_no_other(hosts: Hosts, tmp_path: Path) -> None:
    """The same file under another name is another program; one that comes later is found."""
    phone, other = tmp_path / "phone", _program(tmp_path, "other")

    def ask(executable: Path, wait_s: float = 2) -> str:
        words = [str(executable), "-c", PROBE, hosts.b.ipv4, str(wait_s)]
        return hosts.a.run(words, check=False).stdout.strip()

    with _hosts(hosts, [phone], _program(tmp_path, "dnsd"), 5300) as (a, b):
        assert ask(other, 0.2) == ""  # not customized here, so dropped there
        _program(tmp_path, "fresh").rename(phone)
        eventually(lambda: "programs were found anew" in a.log.read_text(), 5)
        assert [ask(phone) for _ in range(10)] == ["a question"] * 10
        assert ask(other, 0.2) == ""
        assert _tagged(a) == (10, 10)
        assert b.counters("names", "tag")["unmarked"] == 2


def test_other_bits_of_a_mark_stay(hosts: Hosts, tmp_path: Path) -> None:
    """What a program sets in its socket's mark outside our field is there behind the chain, too."""
    text = PROBE.replace("end.sendto", "end.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, {}); end.sendto")
    own = "end.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) | 0x40000"
    phone = _program(tmp_path, "phone")
    hosts.a.run(["iptables", "-A", "OUTPUT", "-m", "mark", "--mark", "0x40000/0x40000"])
    with _hosts(hosts, ["phone"], _program(tmp_path, "dnsd"), 5300) as (a, _):
        said = hosts.a.run([str(phone), "-c", text.format(own), hosts.b.ipv4, "2"]).stdout
        assert said.strip() == "a question" and _tagged(a) == (1, 1)
        saved = hosts.a.run(["iptables-save", "-c"]).stdout.splitlines()
        assert [line[:3] for line in saved if "0x40000" in line] == ["[1:"]


def test_tcp_by_name(hosts: Hosts, tmp_path: Path) -> None:
    """curl's connection, its SYN included, goes through the chain; that of another program does not."""
    chain = '{ module = "scramble", key = "sixteen bytes it is" }'
    policy = f'[policy.web]\nmatch = {{ protocol = "tcp", program = "curl" }}\nchain = [ {chain} ]\n'
    server = policy.replace('program = "curl"', "local_port = [8080]")
    (tmp_path / "page").write_text("a page")
    serve = [sys.executable, "-m", "http.server", "8080", "--bind", hosts.b.ipv4, "-d", str(tmp_path)]
    with running(hosts.a, policy) as a, running(hosts.b, server) as b:
        hosts.b.popen(serve)
        eventually(lambda: hosts.b.run(["ss", "-Hln", "--tcp", "sport", "=", "8080"]).stdout, 5)
        with hosts.b.capture("tcp") as capture:
            assert hosts.a.run(["curl", "-s", f"http://{hosts.b.ipv4}:8080/page"]).stdout == "a page"
        assert b"a page" not in capture.content
        assert a.engine()["connections_customized"] == b.engine()["connections_customized"] == 1
        before = a.policy("web")["packets"]
        with hosts.a.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
            other.settimeout(5)
            other.connect((hosts.b.ipv4, 8080))
            other.sendall(b"GET /page HTTP/1.0\r\n\r\n")
            assert b"".join(iter(lambda: other.recv(4096), b"")).endswith(b"a page")
        assert a.policy("web")["packets"] == before
