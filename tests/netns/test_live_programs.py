"""Real programs through chains: dig and dnsmasq, curl and lighttpd, iperf3; IPv4 and IPv6.

a: dig, curl, iperf3 -c ── chain ──▶ wire ──▶ chain ── b: dnsmasq, lighttpd, iperf3 -s
"""

import hashlib
import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

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

KEY = 'key = "sixteen bytes it is"'
SCRAMBLE = f'{{ module = "scramble", {KEY} }}'
NUMBERED = (
    f'{{ module = "scramble", {KEY}, nonce = "sequence" }}, {{ module = "tag", id = "h", unmarked = "drop" }}'
)
TWICE = f'{NUMBERED}, {{ module = "duplicate", unmarked = "drop" }}'
SECRET = b"a text that no one on the wire may read; "
FILE_BYTES = 50_000_000


@contextmanager
def _daemons(hosts: Hosts, *services: Service) -> Iterator[tuple[Daemon, Daemon]]:
    with (
        running(hosts.a, client_side(services)) as a,
        running(hosts.b, server_side(services)) as b,
    ):
        yield a, b
        for daemon in (a, b):
            assert_balanced(daemon.stats())
        assert_no_checksum_errors(*hosts)


def _listens(host: Host, kind: str, port: int) -> None:
    eventually(lambda: host.run(["ss", "-Hln", kind, "sport", "=", str(port)]).stdout, 5)


# --- DNS ----------------------------------------------------------------------


def _dig(hosts: Hosts, family: int, *words: str) -> list[str]:
    argv = ["dig", "+short", "+time=2", "+tries=1", f"@{hosts.b.address(family)}", *words]
    return hosts.a.run(argv).stdout.splitlines()


def test_dig_asks_dnsmasq(hosts: Hosts) -> None:
    """Over UDP tagged and scrambled, over TCP scrambled; long answers too; nothing readable on the wire."""
    long_text = [f"{number:02} " + "what a name may say of itself " * 7 for number in range(5)]
    records = [f"--txt-record=long.test,{text}" for text in long_text]
    dns = [
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
        "--user=root", "--pid-file=", "--bind-interfaces", "--listen-address=10.77.0.2,fd77::2",
        "--edns-packet-max=4096",
        "--address=/secret-name.test/192.0.2.7", "--address=/secret-name.test/2001:db8::7", *records,
    ]  # fmt: skip
    services = Service("dns", 53, NUMBERED), Service("dns_tcp", 53, SCRAMBLE, protocol="tcp")
    with _daemons(hosts, *services) as (a, b):
        hosts.b.popen(dns, stderr=subprocess.DEVNULL)
        _listens(hosts.b, "--udp", 53)
        with hosts.b.capture("port 53") as capture:
            for family in FAMILIES:
                for way in ("+notcp", "+tcp"):
                    assert _dig(hosts, family, way, "secret-name.test") == ["192.0.2.7"]
                    assert _dig(hosts, family, way, "secret-name.test", "AAAA") == ["2001:db8::7"]
                    answer = _dig(hosts, family, way, "+bufsize=4096", "long.test", "TXT")
                    assert sorted(answer) == [f'"{text}"' for text in long_text]
                assert len(_dig(hosts, family, "+bufsize=512", "long.test", "TXT")) == 5  # cut, then by TCP
        assert b"secret-name" not in capture.content and b"what a name" not in capture.content
        for daemon in (a, b):
            tag = daemon.counters("dns", "tag")
            assert tag["tagged"] == tag["stripped"] == 8 and tag["unmarked"] == 0
            assert daemon.policy("dns_tcp")["packets"] > 50
        for flow in (flow for flow in a.flows() if flow["protocol"] == "udp"):
            assert flow["egress_packets"] == flow["ingress_packets"] == 1


# --- HTTP ---------------------------------------------------------------------


@contextmanager
def _lighttpd(host: Host, root: Path, *ports: int) -> Iterator[None]:
    first = ports[0]
    listening = "".join(
        f'$SERVER["socket"] == "{address}:{port}" {{ }}\n'
        for port in ports
        for address in ("0.0.0.0", "[::]")
        if (port, address) != (first, "0.0.0.0")
    )
    settings = f'server.document-root = "{root}"\nserver.port = {first}\nserver.bind = "0.0.0.0"\n{listening}'
    (root / "lighttpd.conf").write_text(settings)
    server = host.popen(["lighttpd", "-D", "-f", str(root / "lighttpd.conf")])
    for port in ports:
        _listens(host, "--tcp", port)
    yield
    server.terminate()
    server.wait(5)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 50 MB, text all over."""
    path = tmp_path_factory.mktemp("www") / "file"
    line = SECRET * 25
    path.write_bytes(b"".join(b"%09d" % number + line for number in range(FILE_BYTES // len(line))))
    return path


@pytest.mark.parametrize("offloads", [True, False], ids=["super-packets", "segments"])
@pytest.mark.parametrize("family", FAMILIES, ids=["ipv4", "ipv6"])
def test_curl_gets_and_puts_a_big_file(hosts: Hosts, document: Path, family: int, offloads: bool) -> None:
    """SHA-256 equal; nothing readable on the wire, where an unmatched port shows it all."""
    address = hosts.b.address(family)
    wanted = hashlib.sha256(document.read_bytes()).hexdigest()
    for host in hosts:
        host.set_offloads(offloads)
    with (
        _daemons(hosts, Service("web", 8080, SCRAMBLE, protocol="tcp")) as (a, b),
        _lighttpd(hosts.b, document.parent, 8080, 8081),
    ):
        seen = {}
        for port in (8080, 8081):
            url = (
                f"http://[{address}]:{port}/file"
                if family == socket.AF_INET6
                else f"http://{address}:{port}/file"
            )
            got = document.with_name("got")
            with hosts.b.capture(f"tcp port {port}") as capture:
                hosts.a.run(["curl", "--silent", "--show-error", "--fail", "--output", str(got), url])
            assert hashlib.sha256(got.read_bytes()).hexdigest() == wanted
            seen[port] = capture.content
        assert SECRET in seen[8081] and b"HTTP/1.1" in seen[8081]
        assert len(seen[8080]) > 1_000_000
        assert not any(plain in seen[8080] for plain in (SECRET, SECRET[:8], b"HTTP/", b"lighttpd"))
        for daemon in (a, b):
            engine = daemon.engine()
            assert engine["received"] == daemon.policy("web")["packets"]
        if offloads:  # super-packets came whole
            web = b.policy("web")
            assert web["egress_bytes"] > 10_000 * web["egress_packets"]


# --- iperf3 -------------------------------------------------------------------


@contextmanager
def _iperf_server(host: Host, port: int) -> Iterator[None]:
    server = host.popen(["iperf3", "--server", "--port", str(port)], stdout=subprocess.DEVNULL)
    _listens(host, "--tcp", port)
    yield
    server.kill()
    server.wait(5)


def _iperf(hosts: Hosts, family: int, port: int, words: Sequence[str]) -> dict[str, Any]:
    argv = ["iperf3", "--json", "-t", "1", "-p", str(port), "-c", hosts.b.address(family), *words]
    done = json.loads(hosts.a.run(argv, timeout=30).stdout)
    assert "error" not in done, done["error"]
    return dict(done["end"])


def test_iperf3(hosts: Hosts) -> None:
    """UDP through numbered, scrambled and doubled datagrams, TCP scrambled; both ways, several at once."""
    services = Service("voice", 5201, TWICE), Service("bulk", 5201, SCRAMBLE, protocol="tcp")
    udp = ["--udp", "-b", "10M", "-l", "1200"]
    with _daemons(hosts, *services) as (a, b), _iperf_server(hosts.b, 5201):
        for family in FAMILIES:
            for way in ([], ["-R"]):
                done = _iperf(hosts, family, 5201, [*udp, *way])
                assert done["sum"]["lost_packets"] == 0 and done["sum"]["packets"] > 900
                for streams in ([], ["-P", "4"]):
                    done = _iperf(hosts, family, 5201, [*way, *streams])
                    assert done["sum_received"]["bytes"] > 5_000_000
        here, there = (daemon.counters("voice", "duplicate") for daemon in (a, b))
        assert here["delivered"] == there["marked"] > 1800 and there["delivered"] == here["marked"] > 1800
        assert here["duplicates"] == there["copies_sent"] and there["duplicates"] == here["copies_sent"]
        assert here["unmarked"] == there["unmarked"] == 0
