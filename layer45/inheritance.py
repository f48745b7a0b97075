"""What a daemon leaves to the next one of its kind, so that the marks of open connections keep their meaning.

    a daemon's file:  written at the start and at each change, beside the control socket, and left there
    at a start:       read, and used if it is of this boot, this network namespace and these mark bits
    at a handover:    the same document, asked of the daemon that runs (handover.py)

Conntrack remembers classes longer than any daemon lives; a host's reboot or another network namespace begins
with an empty conntrack, and then numbers of old mean nothing.
"""

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from layer45.life_cycle import Standing
from layer45.namespace import namespace_identity
from layer45.written_version import WrittenVersion, write_version

if TYPE_CHECKING:
    from layer45.loader import Plan

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LARGEST_BYTES = 64 << 20
LARGEST_CLASS = 1 << 31
NOT_OURS = "expected a file of root's that nobody else can open"

ClassNumber = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_CLASS)]


class Inheritance(msgspec.Struct, frozen=True):
    """classes: numbers given so far, by policy, the longest gone first. versions: the chains that ran.

    standings: of the policies. taken: numbers of queues that somebody reads.
    """

    valid: str = ""  # where and for which marks
    classes: dict[str, ClassNumber] = {}
    versions: tuple[WrittenVersion, ...] = ()
    standings: dict[str, Standing] = {}
    taken: tuple[int, ...] = ()


_decoder = msgspec.json.Decoder(Inheritance)


def valid_for(mark_mask: int) -> str:
    """What must be equal for numbers to mean the same."""
    return f"{BOOT_ID.read_text().strip()} {namespace_identity()} {mark_mask:#x}"


def left_by(plan: "Plan", standings: Mapping[str, Standing]) -> Inheritance:
    """What a daemon with this plan leaves."""
    return Inheritance(
        valid_for(plan.settings.mark_mask),
        dict(plan.classes),
        tuple(map(write_version, plan.versions)),
        dict(standings),
    )


def inheritance_path(control_socket: str) -> Path:
    """The file that belongs to a control socket."""
    return Path(f"{control_socket}.inheritance")


def write_inheritance(path: Path, left: Inheritance) -> str:
    """In one step, for root alone. Why it could not be written, or nothing."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(left))
        fresh.rename(path)
    except OSError as error:
        return f"{path}: cannot be written: {error.strerror}; a restart will give other class numbers"
    return ""


def read_inheritance(path: Path, mark_mask: int) -> tuple[Inheritance, str]:
    """What was left there for daemons like us, if anything; and what is wrong with the file, or nothing.

    That of another boot, of another network namespace or for other mark bits is nothing, and not wrong.
    """
    try:
        content = _content(path)
        left = _decoder.decode(content) if content else Inheritance()
        _check_numbers(left)
    except FileNotFoundError:
        return Inheritance(), ""
    except (OSError, ValueError) as error:
        reason = str(error) if isinstance(error, ValueError) else error.strerror
        if isinstance(error, PermissionError):
            reason = NOT_OURS
        return Inheritance(), f"{path}: not used: {reason}; open connections may get other policies"
    return (left if left.valid == valid_for(mark_mask) else Inheritance()), ""


def _content(path: Path) -> bytes:
    """ValueError: the file is not one that only we could have written."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise ValueError(NOT_OURS)
        if found.st_size > LARGEST_BYTES:
            raise ValueError(f"expected at most {LARGEST_BYTES} bytes")
        return file.read()


def _check_numbers(left: Inheritance) -> None:
    if len(set(left.classes.values())) != len(left.classes):
        raise ValueError("it gives one class to two policies")
