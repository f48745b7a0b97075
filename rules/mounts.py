"""What is mounted where."""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
MOUNTINFO = Path("/proc/self/mountinfo")


def mounted(kind: str, mounts: Path = MOUNTS, option: str = "") -> list[Path]:
    """Where file systems of a kind are, first mounted first; those with a mount option, if it is given."""
    rows = [line.split() for line in mounts.read_text().splitlines()]
    return [_path(row[1]) for row in rows if row[2] == kind and option in ("", *row[3].split(","))]


def shows_root(path: Path) -> bool:
    """Whether a mount shows its file system from the root on: of a cgroup tree, the root of our namespace."""
    rows = [line.split() for line in MOUNTINFO.read_text().splitlines()]
    roots = [row[3] for row in rows if _path(row[4]) == path]
    return not roots or roots[-1] == "/"


def _path(text: str) -> Path:
    return Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text))
