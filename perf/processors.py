"""A processor for each host, with all that runs in it, as two machines have; or as the scheduler likes.

Where the scheduler places two programs of a host beside each other in one run and apart in the next, a round
trip may take half as long again; held in place, medians of runs differ by a few percent.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.netns.topology import Host


@dataclass(frozen=True)
class Placement:
    """The processors of host a and host b; empty: the scheduler's choice."""

    processors: tuple[int, ...]

    def command(self, host: Host, argv: Sequence[str]) -> list[str]:
        """The command line that runs argv where the host is."""
        if not self.processors:
            return list(argv)
        return ["taskset", "--cpu-list", str(self._of(host)), *argv]

    def place(self, host: Host, pid: int) -> None:
        """Moves all threads of a process there."""
        for task in Path(f"/proc/{pid}/task").iterdir() if self.processors else ():
            os.sched_setaffinity(int(task.name), {self._of(host)})

    def _of(self, host: Host) -> int:
        return self.processors["ab".index(host.name[-1])]


ANYWHERE = Placement(())


def one_for_each_host() -> Placement:
    """The first two processors that we may use; anywhere, if there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return Placement(tuple(allowed[:2])) if len(allowed) > 1 else ANYWHERE


PLACEMENTS: dict[str, Callable[[], Placement]] = {"apart": one_for_each_host, "anywhere": lambda: ANYWHERE}


def add_option(parser: argparse.ArgumentParser, default: str) -> None:
    """--placement, a name in PLACEMENTS."""
    text = f"apart: each host has a processor; anywhere: as the scheduler likes; default {default}"
    parser.add_argument("--placement", choices=PLACEMENTS, default=default, help=text)
