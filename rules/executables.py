"""How the kernel knows an executable: by its inode, and the device of the file system that it is in.

stat() may say another device (btrfs has one for each subvolume, overlayfs one of a layer), so the file is
mapped into our memory for a moment: /proc/self/maps has the numbers that the tagger reads.
"""

import ctypes
import mmap
import re
from dataclasses import dataclass
from pathlib import Path

from layer45.rules.capabilities import raised

MINOR_BITS = 20  # of the kernel's device numbers
_LINE = re.compile(r"^([0-9a-f]+)-\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+)", re.ASCII)


@dataclass(frozen=True)
class Executable:
    """device: the kernel's number."""

    inode: int
    device: int


@raised("dac_read_search")  # for those in people's own directories
def version(path: str) -> tuple[int, int] | None:
    """Something that is another when the path leads to another file; cheap. None: it leads nowhere."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


@raised("dac_read_search")
def find(path: str) -> Executable | None:
    """A file, behind any links; None where there is none that could be run."""
    try:
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_COPY) as view:
            address = ctypes.addressof(ctypes.c_char.from_buffer(view))
            return _mapped_at(address)
    except (OSError, ValueError):  # no such file, or an empty one
        return None


def is_script(path: str) -> bool:
    """Whether a file is run by the interpreter that its first line names."""
    try:
        with Path(path).open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return False


def _mapped_at(address: int) -> Executable | None:
    for line in Path("/proc/self/maps").read_text().splitlines():
        found = _LINE.match(line)
        if found and int(found[1], 16) == address:
            return Executable(int(found[4]), int(found[2], 16) << MINOR_BITS | int(found[3], 16))
    return None
