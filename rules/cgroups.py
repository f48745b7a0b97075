"""Where the cgroup v2 tree is, and which of a plan's cgroups are in it.

They come and go, as services do. Rules and the tagger know them by the kernel's numbers, and so are made
anew.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from layer45.rules.diversion import RulePlan
from layer45.rules.errors import RulesError
from layer45.rules.mounts import MOUNTS, mounted, shows_root

USUAL_MOUNT = Path("/sys/fs/cgroup")


def mount_point(mounts: Path = MOUNTS) -> Path:
    """Root of the cgroup v2 tree. Raises RulesError where none is, or that of a namespace around ours.

    The kernel takes a rule's path to begin at the root of our cgroup namespace.
    """
    found = mounted("cgroup2", mounts)
    for path in found:
        if shows_root(path):
            return path
    if found:
        mend = f"expected its root; run: umount {found[0]}; mount -t cgroup2 none {found[0]}"
        raise RulesError(f"{found[0]} does not show the cgroups of this cgroup namespace; {mend}")
    raise RulesError(f"no cgroup v2 tree in {mounts}; mount it: mount -t cgroup2 none {USUAL_MOUNT}")


def level(path: str) -> int:
    """Depth below the root, which is 0."""
    return len(PurePosixPath(path).parts)


def above(path: str) -> list[str]:
    """The cgroups that a cgroup lies in, but for the root; the deepest first."""
    return [str(each) for each in PurePosixPath(path).parents][:-1]


def within(path: str, ancestor: str) -> bool:
    """Whether path is ancestor or lies below it."""
    return ancestor in (path, *above(path))


def versions(plan: RulePlan) -> dict[str, int | None]:
    """The cgroups that a plan names → the kernel's number, another when one is made anew; None: missing.

    Raises RulesError where there is no cgroup v2 tree.
    """
    paths = dict.fromkeys(path for selector in plan.selectors() for path in selector.cgroup)
    root = mount_point() if paths else USUAL_MOUNT
    return {path: _identity(root / path) for path in paths}


def _identity(directory: Path) -> int | None:
    try:
        return directory.stat().st_ino if directory.is_dir() else None
    except OSError:
        return None


def of_missing(plan: RulePlan, written: Callable[[str], str]) -> Callable[[str], bool]:
    """Whether a rule is about a cgroup that is not there: nobody is in it, and the kernel takes none.

    written: how a rule has a cgroup's path.
    """
    gone = [written(path) for path, identity in versions(plan).items() if identity is None]
    return lambda rule: any(each in rule for each in gone)


def by_identity() -> dict[int, str]:
    """The kernel's numbers of all cgroups there are now → their paths. Raises RulesError."""
    root = mount_point()
    found = {}
    for directory, _, _ in os.walk(root):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            path = os.path.relpath(directory, root)
            found[Path(directory).stat().st_ino] = "" if path == "." else path
    return found
