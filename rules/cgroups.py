"""Where the cgroup v2 tree is, and which of a plan's cgroups are in it."""

import contextlib
import os
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


def within(path: str, ancestor: str) -> bool:
    """Whether path is ancestor or lies below it."""
    return PurePosixPath(path).is_relative_to(PurePosixPath(ancestor))


def require(plan: RulePlan) -> None:
    """Raise RulesError naming the first policy whose cgroup does not exist (the kernel only says EINVAL)."""
    for diversion in plan.diversions:
        for selector in (diversion.select, diversion.unless) if diversion.select else ():
            for path in selector.cgroup if selector else ():
                if not (mount_point() / path).is_dir():
                    raise RulesError(
                        f"policy {diversion.policy}: cgroup {path!r} does not exist; "
                        f"expected the directory {mount_point() / path}"
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


def identity(path: str) -> int:
    """The kernel's number of a cgroup. Raises RulesError where it does not exist."""
    try:
        return (mount_point() / path).stat().st_ino
    except OSError as error:
        raise RulesError(f"cgroup {path!r}: {error.strerror}") from None
