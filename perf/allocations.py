"""What the threads of a program allocate on the heap, counted from inside while it runs: see allocations.c.

with Allocations(folder) as allocations:
    process = host.popen([*allocations.wrapper, "layer45", "run"])
    before = allocations.of(thread)
    ...
    assert allocations.of(thread) == before

For a shell: `python -m perf.allocations PROGRAM…` runs it, and prints what each of its threads has allocated.
"""

import mmap
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from perf import lab

ROW = struct.Struct("=6Q")  # as in allocations.c
THREADS = 1024


class Calls(NamedTuple):
    """How often a thread called what; free: of something."""

    malloc: int = 0
    calloc: int = 0
    realloc: int = 0
    aligned: int = 0
    free: int = 0


class Allocations:
    """The counts of one program, in a file in folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "allocations"
        self._path.write_bytes(bytes(ROW.size * THREADS))
        self._file = self._path.open("rb")
        self._table = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> "Allocations":
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()
        self._file.close()

    @property
    def wrapper(self) -> list[str]:
        """A program that becomes the one whose words follow, and has it counted. Objects of Python, too."""
        preload = lab.compiled("allocations", ".so", "-shared", "-fPIC")
        return ["env", f"LD_PRELOAD={preload}", f"LAYER45_ALLOCATIONS={self._path}", "PYTHONMALLOC=malloc"]

    def by_thread(self) -> dict[int, Calls]:
        """All threads so far by their ids; 0: those for which the table had no row of their own."""
        found: dict[int, Counter[str]] = {}
        for thread, *calls in ROW.iter_unpack(self._table):
            if any(calls):
                found.setdefault(thread, Counter()).update(dict(zip(Calls._fields, calls, strict=True)))
        return {thread: Calls(**calls) for thread, calls in found.items()}

    def of(self, thread: int) -> Calls:
        """One thread's."""
        return self.by_thread().get(thread, Calls())


def main() -> None:
    """Run a program and print its counts."""
    if not sys.argv[1:]:
        sys.exit("usage: python -m perf.allocations PROGRAM…")
    with tempfile.TemporaryDirectory() as folder, Allocations(Path(folder)) as allocations:
        status = subprocess.run([*allocations.wrapper, *sys.argv[1:]], check=False).returncode
        for thread, calls in allocations.by_thread().items():
            print(f"thread {thread}: {calls._asdict()}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
