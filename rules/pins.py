"""Where an owner's BPF map and programs have names, so that rules and other processes find them.

In a BPF file system: the host's, where there is one, else one of the owner's own below the runtime directory.
The place bears the number of the network namespace besides, as the rules do: names are the whole host's.
"""

import contextlib
import ctypes
import os
from pathlib import Path

from layer45.rules.capabilities import raised
from layer45.rules.errors import RulesError
from layer45.rules.mounts import mounted
from layer45.rules.names import owner_tag

RUNTIME = Path("/run/layer45")
NAMESPACE = Path("/proc/thread-self/ns/net")
NO_SUID, NO_DEVICES, NO_EXECUTION, DETACH = 2, 4, 8, 2


def directory(owner: str) -> Path:
    """Where the owner's names are, or will be."""
    own = _own(owner)
    if own.is_mount():
        return own
    return next((path / _name(owner) for path in of_the_host()), own)


def make(owner: str) -> Path:
    """The same, and it exists from now on. Raises RulesError."""
    place = directory(owner)
    try:
        if place.parent == RUNTIME and not RUNTIME.is_dir():
            RUNTIME.mkdir()
            RUNTIME.chmod(0o755)  # whatever the umask: it may become the place of a control socket
        place.mkdir(mode=0o700, exist_ok=True)
        if place.parent == RUNTIME and not place.is_mount():
            _mount(place)
    except OSError as error:
        _remove_empty(place)
        raise RulesError(f"{place}: no BPF file system can be had there: {error.strerror}") from None
    return place


def existing(owner: str) -> list[Path]:
    """All places where names of the owner are left: which one was taken depends on what was mounted then."""
    places = [path / _name(owner) for path in of_the_host()]
    return [place for place in (*places, _own(owner)) if place.is_dir()]


def clear(place: Path) -> None:
    """Takes all names in a place away, and the place."""
    if place.is_mount():
        with raised("sys_admin"):
            _libc().umount2(os.fsencode(place), DETACH)  # what is in it goes with it
    for path in place.iterdir():
        path.unlink()
    _remove_empty(place)


def _remove_empty(place: Path) -> None:
    """And the runtime directory, unless others' places are still there."""
    with contextlib.suppress(OSError):
        place.rmdir()
        if place.parent == RUNTIME:
            RUNTIME.rmdir()


def _name(owner: str) -> str:
    return f"layer45_{owner_tag(owner)}_{NAMESPACE.stat().st_ino}"


def _own(owner: str) -> Path:
    return RUNTIME / f"bpf_{owner_tag(owner)}_{NAMESPACE.stat().st_ino}"


def of_the_host() -> list[Path]:
    """BPF file systems that are nobody's own."""
    return [path for path in mounted("bpf", option="rw") if RUNTIME not in path.parents]


def _mount(place: Path) -> None:
    flags = NO_SUID | NO_DEVICES | NO_EXECUTION
    with raised("sys_admin"):
        failed = _libc().mount(b"bpf", os.fsencode(place), b"bpf", flags, b"mode=0700")
    if failed:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
