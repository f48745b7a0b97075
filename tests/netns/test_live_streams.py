"""Programs from Debian through stream_tag: curl and lighttpd with HTTP/1.1, TLS and HTTP/2; ssh; iperf3.

a: curl, scp, iperf3 -c ── stream_tag ──▶ wire ──▶ stream_tag ── b: lighttpd, sshd, iperf3 -s
Both hosts drop what conntrack finds invalid.
"""

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .datagrams import both_families
from .stream_programs import (
    IPERF,
    SECURE,
    SHELL,
    WEB,
    curl,
    iperf,
    iperf_server,
    lighttpd,
    ssh_words,
    sshd,
    tree_digests,
    url,
)
from .streams import EVERY_BYTES, TAG, TAG_BYTES, Road, assert_nobody_noticed, counted, noise, streams, tcp
from .topology import two_hosts
from .wire import stream_on_the_wire

pytestmark = pytest.mark.root

FILE_BYTES, SMALL_BYTES = 20_000_000, 1_000_000
SERVICES = [
    tcp(name, port, TAG)
    for name, port in {"web": WEB, "secure": SECURE, "shell": SHELL, "bulk": IPERF}.items()
]


@dataclass(frozen=True)
class Served(Road):
    """With b's servers, and a directory with what they serve."""

    root: Path

    def curl(self, family: int, port: int, name: str, *words: str) -> bytes:
        """curl on a."""
        return curl(self.hosts.a, *words, url(self.hosts.b, family, port, name))


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("www")
    (root / "file").write_bytes(noise(FILE_BYTES))
    (root / "small").write_bytes(noise(SMALL_BYTES, 1))
    with (
        two_hosts() as hosts,
        streams(hosts, SERVICES) as (a, b),
        lighttpd(hosts.b, root),
        sshd(hosts.b, root),
        iperf_server(hosts.b),
    ):
        yield Served(hosts, a, b, root)


@pytest.fixture(autouse=True)
def nobody_notices(road: Served) -> Iterator[None]:
    with counted(*road.daemons) as (a, b):
        yield
    assert_nobody_noticed(road.hosts)
    assert a["connections_customized"] == b["connections_customized"] > 0
    assert a["connections_alone"] == b["connections_alone"] == 0


@pytest.mark.parametrize("offloads", [True, False], ids=["super-packets", "segments"])
@both_families
def test_http_down_and_up(road: Served, family: int, offloads: bool) -> None:
    """SHA-256 equal; a tag for each 1000 bytes, in both directions, and few more for what was sent again."""
    for host in road.hosts:
        host.set_offloads(offloads)
    upload = ["--data-binary", f"@{road.root / 'file'}", "-H", "Expect:"]
    with counted(*road.daemons) as (a, b):
        got = road.curl(family, WEB, "file")
        up = road.curl(family, WEB, "sum.sh", *upload)
    assert hashlib.sha256(got).digest() == hashlib.sha256(noise(FILE_BYTES)).digest()
    assert up.split()[0].decode() == hashlib.sha256(noise(FILE_BYTES)).hexdigest()
    needed = FILE_BYTES // EVERY_BYTES
    for counter in ("web.tags", "web.stripped"):
        assert needed <= a[counter] < needed * 1.2 and needed <= b[counter] < needed * 1.2


@both_families
def test_tags_stand_on_the_wire(road: Served, family: int) -> None:
    """In front of the first byte and every 1000 from there, and nothing else is changed."""
    with road.hosts.b.capture(f"tcp port {WEB}") as capture:
        got = road.curl(family, WEB, "small", "--include")
    wire = stream_on_the_wire(capture, WEB)
    tag = b"host-7".ljust(TAG_BYTES, b"\0")
    period = TAG_BYTES + EVERY_BYTES
    assert {wire[at : at + TAG_BYTES] for at in range(0, len(wire), period)} == {tag}
    assert b"".join(wire[at + TAG_BYTES : at + period] for at in range(0, len(wire), period)) == got
    assert got.endswith(noise(SMALL_BYTES, 1))


@both_families
def test_https_with_http2(road: Served, family: int) -> None:
    """Several transfers in one connection, some of them at once."""
    names = ["file", "small", "small", "file"]
    out = [road.root / f"got{at}" for at in range(len(names))]
    words: list[str] = []
    for name, path in zip(names, out, strict=True):
        words += ["--output", str(path), url(road.hosts.b, family, SECURE, name)]
    version = ["--http2", "--parallel", "--write-out", "%{http_version} %{response_code}\n"]
    assert curl(road.hosts.a, *version, *words).split(b"\n")[:-1] == [b"2 200"] * len(names)
    for name, path in zip(names, out, strict=True):
        assert path.read_bytes() == (road.root / name).read_bytes()


@both_families
def test_a_tree_by_scp(road: Served, family: int) -> None:
    """There and back, and a command's output."""
    tree, back = road.root / f"tree{family}", road.root / f"back{family}"
    for at in range(60):
        path = tree / f"{at % 7}" / f"{at}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(at * at * 100, at))
    address = road.hosts.b.address(family)
    remote = f"root@[{address}]:{road.root}/there{family}"
    words = ssh_words(road.root)
    for source, into in ((str(tree), remote), (remote, str(back))):
        road.hosts.a.run(["scp", "-q", "-r", *words, "-P", str(SHELL), source, into])
    assert tree_digests(back) == tree_digests(tree)
    listed = road.hosts.a.run(["ssh", *words, "-p", str(SHELL), f"root@{address}", "seq 100000"]).stdout
    assert listed.split() == [str(number) for number in range(1, 100001)]


@pytest.mark.parametrize("words", [["-P", "8"], ["-P", "8", "-R"], ["--bidir"]], ids=" ".join)
def test_iperf3(road: Served, words: list[str]) -> None:
    """Eight connections at once either way, and both ways in two."""
    done = iperf(road.hosts, socket.AF_INET, *words)
    assert _bytes(done, "sum_received") > 20_000_000
    if "--bidir" in words:
        assert _bytes(done, "sum_received_bidir_reverse") > 20_000_000


def _bytes(done: dict[str, Any], key: str) -> int:
    return int(done[key]["bytes"])
