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
from .topology import Host, Hosts

pytestmark = pytest.mark.root

PORT = 7001
FLOWS, WARMING, ROUNDS = 8, 300, 1500
THREE = (
    '{ module = "drop", prefix = "hex:ffff" }, { module = "tag", id = "host-7" }, '
    '{ module = "scramble", key = "hex:00112233445566778899aabbccddeeff" }'
)
CHAINS = {"tag, scramble, drop": THREE, "fec": '{ module = "fec" }'}
FILTERED = re.compile(r"^Seccomp:\s+2", re.MULTILINE)
PYTHON_MODULE = """
class Module:
    def __init__(self, parameters, count):
        pass

    def egress(self, packet):
        packet.payload = bytes(packet.payload)

    ingress = egress
"""


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


Both = tuple[list[Counted], Callable[[int], None]]


@contextlib.contextmanager
def both(hosts: Hosts, folder: Path, chain: str, **settings: object) -> Iterator[Both]:
    """Both hosts' daemons, and what sends so many datagrams on each flow and has them back; all are open."""
    service = [Service("counted", PORT, chain)]
    with contextlib.ExitStack() as stack:
        ends = [
            stack.enter_context(counted(host, folder / host.name, side(service), **settings))
            for host, side in ((hosts.a, client_side), (hosts.b, server_side))
        ]
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
        yield ends, send


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_a_packet_costs_no_allocation(hosts: Hosts, tmp_path: Path, chain: str) -> None:
    with both(hosts, tmp_path, chain) as (ends, send):
        engines, before = [end.engine() for end in ends], [end.workers() for end in ends]
        send(ROUNDS)
        after = [end.workers() for end in ends]
        assert after == before
        for end, earlier in zip(ends, engines, strict=True):
            later = end.engine()
            assert later["received"] - earlier["received"] >= 2 * FLOWS * ROUNDS
            assert later["rewritten"] > earlier["rewritten"]
            assert later["flows_opened"] == earlier["flows_opened"] == FLOWS


def test_a_module_that_allocates_is_seen(hosts: Hosts, tmp_path: Path) -> None:
    """In Python a packet is several objects: the test above can fail."""
    modules = tmp_path / "modules"
    modules.mkdir()
    write_module(modules, "copying", PYTHON_MODULE)
    with both(hosts, tmp_path, '{ module = "copying" }', module_dirs=[str(modules)]) as (ends, send):
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
        "for name in ('malloc', 'calloc', 'realloc', 'aligned_alloc'):\n"
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
    assert calls.malloc > 1000 and calls.calloc >= 2000
    assert 4000 <= calls.aligned < 4100
    assert calls.free >= 7000
