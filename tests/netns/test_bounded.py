"""perf.bounded: a program that hangs is ended; its namespaces, programs, cgroups and files are gone."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from layer45.cgroups import mount_point
from perf import bounded

from .daemons import eventually
from .topology import NAMESPACES

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
HANGS = """
import os, signal, sys, tempfile, time
from pathlib import Path
from layer45.cgroups import Cgroups
from tests.netns.topology import two_hosts
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Cgroups(f"layer45-perf-{os.getpid()}-a").prepare("bench")
with two_hosts() as hosts:
    deaf = hosts.a.popen(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    folder = tempfile.mkdtemp()
    ready = Path(sys.argv[1])
    ready.with_suffix(".new").write_text(f"{os.getpid()} {deaf.pid} {folder}")
    ready.with_suffix(".new").rename(ready)
    time.sleep(600)
"""


def hanging(ready: Path) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(HANGS), str(ready)]


def left(ready: Path) -> list[object]:
    """What there still is of what the program made."""
    pid, deaf, folder = ready.read_text().split()
    paths = [*NAMESPACES.glob(f"l45-{pid}-*"), *mount_point().glob(f"layer45-perf-{pid}-*"), Path(folder)]
    return [*(path for path in paths if path.exists()), *(each for each in (pid, deaf) if runs(each))]


def runs(pid: str) -> bool:
    """Whether it does; one that has ended may wait for its parent."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_program_that_hangs_leaves_nothing(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    assert bounded.run(hanging(ready), seconds=3, goes_s=0.5) is None
    assert left(ready) == []


def test_who_is_ended_while_it_waits_leaves_nothing(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = f"from perf import bounded; bounded.run({hanging(ready)!r}, 600, 0.5)"
    waiting = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    eventually(ready.exists, 20)
    assert len(left(ready)) == 6  # two namespaces, two processes, a cgroup, a directory
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(20) == 128 + signal.SIGTERM
    assert left(ready) == []


def test_the_status_of_a_program_that_ends_is_its_own() -> None:
    begun = time.monotonic()
    assert bounded.run([sys.executable, "-c", "raise SystemExit(3)"], 20) == 3
    assert time.monotonic() - begun < 10
