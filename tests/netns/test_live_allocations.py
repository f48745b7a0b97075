"""In a steady state, no packet costs an allocation: counted in the daemon's own process, by thread.

a: clients ── chain ──▶ wire ──▶ chain ── b: an echo server. Both daemons run under perf/allocations.c.

All flows are open before, as opening one allocates. Python allocates from the C library here, not from pools
of its own, so that no object goes uncounted.
"""

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from perf.allocations import Allocations, Calls

from .daemons import Service, client_side, server_side
from .datagrams import FAMILIES, connected, echo, exchange, payload
from .live_daemon import LiveDaemon, live_daemon
from .site_modules import write_module
from .streams import connection, noise, transfer
from .topology import Host, Hosts

pytestmark = pytest.mark.root

PORT = 7001
FLOWS, WARMING, ROUNDS = 8, 300, 1500
STREAM_BYTES = 8 << 20
THREE = (
    '{ module = "drop", prefix = "hex:ffff" }, { module = "tag", id = "host-7" }, '
    '{ module = "scramble", key = "hex:00112233445566778899aabbccddeeff" }'
)
CHAINS = {
    "empty": "",
    "tag, scramble, drop": THREE,
    "duplicate": '{ module = "duplicate" }',
    "fec": '{ module = "fec" }',
}
STREAM_CHAINS = {
    "scramble": '{ module = "scramble", key = "hex:00112233445566778899aabbccddeeff" }',
    "stream_tag": '{ module = "stream_tag", id = "host-7" }',
}
FILTERED = re.compile(r"^Seccomp:\s+2", re.MULTILINE)
PYTHON_MODULE = """
class Module:
    def __init__(self, parameters, count):
        pass

    def egress(self, packet):
        packet.payload = bytes(packet.payload)

    ingress = egress
"""
Send = Callable[[int], None]  # so many datagrams on each flow, and they come back


class Counted:
    """A daemon whose threads' allocations are counted."""

    def __init__(self, daemon: LiveDaemon, allocations: Allocations) -> None:
        self.daemon, self.allocations = daemon, allocations

    def workers(self) -> dict[int, Calls]:
        """By thread; a worker is known by its filter of system calls."""
        assert self.daemon.process is not None
        tasks = Path(f"/proc/{self.daemon.process.pid}/task").iterdir()
        filtered = (task for task in tasks if FILTERED.search((task / "status").read_text()))
        found = {int(task.name): self.allocations.of(int(task.name)) for task in filtered}
        assert found, "no thread has a filter of system calls"
        return found

    def engine(self) -> dict[str, int]:
        """Its counters."""
        return dict(self.daemon.json("stats")["engine"])


@contextlib.contextmanager
def counted(host: Host, folder: Path, policies: str, **settings: object) -> Iterator[Counted]:
    """A daemon, ready."""
    with live_daemon(host, folder, policies) as daemon, Allocations(folder) as allocations:
        daemon.settings(**settings)
        daemon.wrapper = allocations.wrapper
        daemon.start()
        yield Counted(daemon, allocations)
        assert daemon.end() == 0, daemon.log_text()


@contextlib.contextmanager
def both(
    hosts: Hosts, folder: Path, chain: str, protocol: str = "udp", **settings: object
) -> Iterator[list[Counted]]:
    """Both hosts' daemons."""
    service = [Service("counted", PORT, chain, protocol=protocol)]
    with (
        counted(hosts.a, folder / "a", client_side(service), **settings) as a,
        counted(hosts.b, folder / "b", server_side(service), **settings) as b,
    ):
        yield [a, b]


@contextlib.contextmanager
def echoed(hosts: Hosts) -> Iterator[Send]:
    """FLOWS clients of an echo server; each has had its first packets."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(echo(hosts.b, PORT))
        clients = [
            stack.enter_context(connected(hosts.a, family, hosts.b, PORT))
            for family in FAMILIES
            for _ in range(FLOWS // 2)
        ]

        def send(count: int) -> None:
            sent = [payload(40 + number % 1000, number) for number in range(count)]
            for client in clients:
                assert exchange(client, sent) == sent

        send(WARMING)
        yield send


def assert_none(ends: list[Counted], work: Callable[[], None], packets: int, flows: int) -> None:
    """AssertionError when the work made a worker allocate, or was not the worker's."""
    engines, before = [end.engine() for end in ends], [end.workers() for end in ends]
    work()
    assert [end.workers() for end in ends] == before
    for end, earlier in zip(ends, engines, strict=True):
        later = end.engine()
        assert later["received"] - earlier["received"] >= packets
        assert later["flows_opened"] == earlier["flows_opened"] == flows


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_a_datagram_costs_no_allocation(hosts: Hosts, tmp_path: Path, chain: str) -> None:
    with both(hosts, tmp_path, chain) as ends, echoed(hosts) as send:
        assert_none(ends, lambda: send(ROUNDS), 2 * FLOWS * ROUNDS, FLOWS)
        rewritten = [end.engine()["rewritten"] for end in ends]
        assert all(rewritten) if chain else not any(rewritten)


@pytest.mark.parametrize("chain", STREAM_CHAINS.values(), ids=STREAM_CHAINS)
def test_a_segment_costs_no_allocation(hosts: Hosts, tmp_path: Path, chain: str) -> None:
    content = noise(STREAM_BYTES)
    with (
        both(hosts, tmp_path, chain, "tcp") as ends,
        connection(hosts, FAMILIES[0], PORT) as (client, server),
    ):

        def work() -> None:
            assert transfer(client, server, content) == content
            assert transfer(server, client, content) == content

        work()
        assert_none(ends, work, 2 * STREAM_BYTES >> 16, 1)
        assert all(end.engine()["rewritten"] for end in ends)


def test_a_module_that_allocates_is_seen(hosts: Hosts, tmp_path: Path) -> None:
    """In Python a packet is several objects: the tests above can fail."""
    modules = tmp_path / "modules"
    modules.mkdir()
    write_module(modules, "copying", PYTHON_MODULE)
    chain = '{ module = "copying" }'
    with both(hosts, tmp_path, chain, module_dirs=[str(modules)]) as ends, echoed(hosts) as send:
        before = [end.workers() for end in ends]
        send(ROUNDS)
        for end, earlier in zip(ends, before, strict=True):
            later = end.workers()
            assert later.keys() == earlier.keys()
            assert all(later[thread].malloc - earlier[thread].malloc > FLOWS * ROUNDS for thread in later)


def test_threads_are_counted_apart_and_nothing_is_missed(tmp_path: Path) -> None:
    """A program that allocates what is known, in a thread of its own."""
    program = (
        "import ctypes, threading\n"
        "libc = ctypes.CDLL(None)\n"
        "for name in ('malloc', 'calloc', 'aligned_alloc'):\n"
        "    getattr(libc, name).restype = ctypes.c_void_p\n"
        "libc.free.argtypes = [ctypes.c_void_p]\n"
        "def run():\n"
        "    for call, count in ((libc.malloc, 1000), (libc.calloc, 2000), (libc.aligned_alloc, 4000)):\n"
        "        for _ in range(count):\n"
        "            libc.free(call(64, 64))\n"
        "thread = threading.Thread(target=run)\n"
        "thread.start()\n"
        "thread.join()\n"
        "print(thread.native_id)\n"
    )
    with Allocations(tmp_path) as allocations:
        words = [*allocations.wrapper, sys.executable, "-c", program]
        done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
        calls = allocations.of(int(done.stdout))
        assert len(allocations.by_thread()) == 2
    assert calls.malloc > 1000
    assert calls.calloc >= 2000
    assert 4000 <= calls.aligned < 4100
    assert calls.free >= 7000
