"""Where the cgroup v2 tree is, and which of a plan's cgroups are in it."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from layer45.rules.diversion import RulePlan
from layer45.rules.errors import RulesError
from layer45.rules.mounts import MOUNTS, mounted

USUAL_MOUNT = Path("/sys/fs/cgroup")


def mount_point(mounts: Path = MOUNTS) -> Path:
    """Root of the cgroup v2 tree. Raises RulesError where none is mounted."""
    for path in mounted("cgroup2", mounts):
        return path
    raise RulesError(f"no cgroup v2 tree in {mounts}; expected one, usually at {USUAL_MOUNT}")


def level(path: str) -> int:
    """Depth below the root, which is 0."""
    return len(PurePosixPath(path).parts)


def above(path: str) -> list[str]:
    """The cgroups that a cgroup lies in, but for the root; the deepest first."""
    return [str(each) for each in PurePosixPath(path).parents][:-1]


def within(path: str, ancestor: str) -> bool:
    """Whether path is ancestor or lies below it."""
    return ancestor in (path, *above(path))


def require(plan: RulePlan) -> None:
    """Raise RulesError naming the first policy whose cgroup does not exist (the kernel only says EINVAL)."""
    owned = [d for d in plan.diversions if d.select and any(s.cgroup for s in (d.select, d.unless) if s)]
    root = mount_point() if owned else USUAL_MOUNT
    for diversion in owned:
        for selector in filter(None, (diversion.select, diversion.unless)):
            for path in selector.cgroup:
                if not (root / path).is_dir():
                    raise RulesError(
                        f"policy {diversion.policy}: cgroup {path!r} does not exist; "
                        f"expected the directory {root / path}"
                    )


def by_identity() -> dict[int, str]:
    """The kernel's numbers of all cgroups there are now → their paths. Raises RulesError."""
    root = mount_point()
    found = {}
    for directory, _, _ in os.walk(root):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            path = os.path.relpath(directory, root)
            found[Path(directory).stat().st_ino] = "" if path == "." else path
    return found


def identities(paths: Iterable[str]) -> dict[str, int]:
    """The kernel's numbers of cgroups. Raises RulesError where one does not exist."""
    root, found = mount_point(), {}
    for path in paths:
        try:
            found[path] = (root / path).stat().st_ino
        except OSError as error:
            raise RulesError(f"cgroup {path!r}: {error.strerror}") from None
    return found
