"""Who serves the queue that packets go through at host a: nobody, a yardstick, or our daemon with some chain.

All stand behind the same rules, those that `layer45 rules` prints for the policy, on the same queue. What
stands at both hosts: ends.py.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perf import lab
from tests.netns.topology import Hosts

MATCH = f'{{ protocol = "udp", remote_port = ["{lab.PORT}"] }}'
COPY_BYTES = 65531
EMPTY = "[]"
DROP = '{ module = "drop", prefix = "hex:ffff" }'  # compares with what no payload has, and so drops nothing
TAG = '{ module = "tag", id = "host-7" }'
SCRAMBLE = '{ module = "scramble", key = "hex:00112233445566778899aabbccddeeff" }'
PYTHON_CALLBACK = (sys.executable, "-m", "perf.python_callback")


@dataclass
class Served:
    """What stands on the queue. pid: 0 for nobody. config: the daemon's. said: at a yardstick's end."""

    pid: int = 0
    config: Path | None = None
    said: str = ""

    def cpu_ns(self) -> int:
        """All of its CPU time so far."""
        return lab.cpu_ns(self.pid) if self.pid else 0

    def counters(self) -> dict[str, int]:
        """Our engine's; of others nothing, while they run."""
        return lab.counters(self.config) if self.config else {}

    def batch(self) -> float | None:
        """Packets a batch, of a yardstick that tells, from its start to its end."""
        for line in self.said.splitlines():
            if line.startswith("{"):
                told = json.loads(line)
                return float(told["packets"] / told["batches"])
        return None


Engine = Callable[[Hosts], contextlib.AbstractContextManager[Served]]


@contextlib.contextmanager
def nobody(_: Hosts) -> Iterator[Served]:
    """No rule, no queue."""
    yield Served()


def standing_in(*argv: str) -> Engine:
    """A yardstick, on the queue that our rules feed."""

    @contextlib.contextmanager
    def engine(hosts: Hosts) -> Iterator[Served]:
        words = [*argv, str(lab.FIRST_QUEUE), str(COPY_BYTES)]
        with tempfile.TemporaryDirectory() as folder:
            config = lab.write_config(Path(folder) / "etc", EMPTY, MATCH)
            with lab.yardstick(hosts.a, words, config) as process:
                served = Served(process.pid)
                yield served
        served.said = _rest(process)

    return engine


def _rest(process: "subprocess.Popen[str]") -> str:
    """What an ended program has said."""
    if process.stdout is None:
        return ""
    with process.stdout as said:
        return said.read()


def c_loop() -> Engine:
    """reference_loop.c."""
    return standing_in(str(lab.compiled("reference_loop")))


def ours(chain: str, program: Sequence[str] | None = None, /, **settings: int | str) -> Engine:
    """The daemon with one policy. program: what stands in for `layer45`. settings: further ones."""

    @contextlib.contextmanager
    def engine(hosts: Hosts) -> Iterator[Served]:
        with tempfile.TemporaryDirectory() as folder:
            config = lab.write_config(Path(folder) / "etc", chain, MATCH, **settings)
            with lab.daemon(hosts.a, config, program) as process:
                yield Served(process.pid, config)

    return engine
