"""A program that gets so much time and then goes, with all that it has made: whatever state it is in.

What tests and benchmarks make carries the pid of their process in its name: network namespaces, of
topology.py, and cgroups. Files go to a directory that is removed behind the program, as its TMPDIR.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from layer45.cgroups import mount_point
from layer45.errors import Layer45Error
from tests.netns.daemons import remove_cgroup
from tests.netns.topology import NAMESPACES

MEMORY = Path("/dev/shm")
GOES_S = 20.0  # from a polite signal to the other one
SWEPT_S = 5.0  # so long for what the program has left
CGROUPS = ("layer45-perf-{}-*", "layer45-test-{}-*")


def run(argv: Sequence[str], seconds: float, goes_s: float = GOES_S) -> int | None:
    """The exit status; None when the time was over. SIGTERM to this process ends the program, too.

    goes_s: for the program to tidy up by itself.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder, ended_by_signals():
        process = subprocess.Popen(argv, env={**os.environ, "TMPDIR": folder}, start_new_session=True)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            end(process, goes_s)
            sweep(process.pid)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM raises SystemExit meanwhile, so what is open is closed."""
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def end(process: "subprocess.Popen[bytes]", goes_s: float = GOES_S) -> None:
    """A polite signal, and the other one when it is still there."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(goes_s)


def sweep(pid: int) -> None:
    """Removes what a process that is gone has left: programs, namespaces, cgroups."""
    namespaces = [path.name for path in NAMESPACES.glob(f"l45-{pid}-*")]
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = [each for name in namespaces for each in pids(name)]
        for each in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)
        until = time.monotonic() + SWEPT_S
        while any(map(pids, namespaces)) and time.monotonic() < until:
            time.sleep(0.05)
    for name in namespaces:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    for path in cgroups(pid):
        remove_cgroup(path)


def pids(namespace: str) -> list[int]:
    """Of the programs in it."""
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    return list(map(int, done.stdout.split()))


def cgroups(pid: int) -> list[Path]:
    """Those that carry the process's pid; none without cgroup v2."""
    try:
        mount = mount_point()
    except Layer45Error:
        return []
    return [path for pattern in CGROUPS for path in mount.glob(pattern.format(pid))]
