"""Runs a program as layer45.service would have it, without systemd: files, capabilities, system calls.

    python -m tests.netns.sandbox WRITABLE COMMAND…        WRITABLE stands for the unit's runtime directory

All that can be is taken from the unit. What a set of system calls has in it, systemd-analyze says. Not done:
PrivateTmp (tests live in /tmp), DevicePolicy, the namespaces of ProtectHostname and PrivateIPC, KeyringMode.
"""

import configparser
import contextlib
import ctypes
import errno
import os
import platform
import re
import resource
import socket
import stat
import subprocess
import sys
from pathlib import Path

from layer45 import seccomp
from layer45.rules import capabilities
from layer45.seccomp import Rule, Test

UNIT = Path(__file__).parents[2] / "layer45" / "layer45.service"
NEW_MOUNTS = 0x20000
GONE = (errno.ENOENT, errno.EINVAL)  # the latter: no mount, any more
READ_ONLY, REMOUNT, BIND, RECURSIVE, SLAVE = 1, 32, 4096, 16384, 1 << 19  # MS_…
UNTOUCHED = ("/dev", "/proc", "/sys")  # by ProtectSystem=strict
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
WRITE, EXECUTE = 2, 4  # PROT_…
NEW_NAMESPACES = 0x7E020000  # CLONE_…
NO_NEW_PRIVILEGES = 38
HEADERS = {"x86_64": "usr/include/*/asm/unistd_64.h", "aarch64": "usr/include/asm-generic/unistd.h"}

_libc = ctypes.CDLL(None, use_errno=True)


def service() -> dict[str, list[str]]:
    """The unit's [Service]: key → its lines."""

    class Lines(dict):  # type: ignore[type-arg]
        def __setitem__(self, key: str, value: object) -> None:
            if isinstance(value, list) and key in self:
                self[key].extend(value)
            else:
                super().__setitem__(key, value)

    unit = configparser.RawConfigParser(strict=False, dict_type=Lines, empty_lines_in_values=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    return {key: value.split("\n") for key, value in unit["Service"].items()}


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()):
        number = ctypes.get_errno()
        raise FileNotFoundError(number, target) if number in GONE else OSError(number, f"mount {target}")


def protect_files(writable: str) -> None:
    """ProtectSystem=strict, ProtectHome=read-only, PrivateDevices, ProtectKernelModules."""
    if _libc.unshare(NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "unshare")
    mount("", "/", "", RECURSIVE | SLAVE)
    mount(writable, writable, "", BIND)
    for row in Path("/proc/self/mounts").read_text().splitlines():
        path = row.split()[1]
        if path != writable and not path.startswith(UNTOUCHED):
            with contextlib.suppress(FileNotFoundError):  # gone since, or under another
                mount("", path, "", REMOUNT | BIND | READ_ONLY)
    if Path("/lib/modules").is_dir():
        mount("tmpfs", "/lib/modules", "tmpfs", READ_ONLY)
    kept = {name: Path("/dev", name).stat().st_rdev for name in DEVICES if Path("/dev", name).exists()}
    mount("tmpfs", "/dev", "tmpfs", 0, "mode=755")
    for name, number in kept.items():
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, number)


def numbers() -> dict[str, int]:
    """The machine's system calls."""
    text = next(Path("/").glob(HEADERS[platform.machine()])).read_text()
    return {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", text)}


def members(words: list[str]) -> set[str]:
    """System calls, those of sets too."""
    found: set[str] = set()
    for word in words:
        if not word.startswith("@"):
            found.add(word)
            continue
        told = subprocess.run(
            ["systemd-analyze", "syscall-filter", "--no-pager", word],
            capture_output=True,
            text=True,
            check=True,
        )
        inside = (line.strip() for line in told.stdout.splitlines()[1:])
        found |= members([line for line in inside if line and not line.startswith("#")])
    return found


def allowed(lines: list[str]) -> set[str]:
    """Of SystemCallFilter: what is listed, less what is listed with a ~."""
    found: set[str] = set()
    for line in lines:
        if line.startswith("~"):
            found -= members(line[1:].split())
        else:
            found |= members(line.split())
    return found


def rules(unit: dict[str, list[str]]) -> list[Rule]:
    """SystemCallFilter, MemoryDenyWriteExecute, RestrictAddressFamilies, RestrictNamespaces."""
    known = numbers()
    families = tuple(int(getattr(socket, each)) for each in " ".join(unit["RestrictAddressFamilies"]).split())
    tests: dict[str, tuple[Test, ...]] = {
        "mmap": (Test(2, (0, WRITE, EXECUTE), WRITE | EXECUTE),),
        "mprotect": (Test(2, mask=EXECUTE),),
        "pkey_mprotect": (Test(2, mask=EXECUTE),),
        "socket": (Test(0, families),),
        "clone": (Test(0, mask=NEW_NAMESPACES),),
    }
    refused = {"clone3": errno.ENOSYS, "unshare": errno.EPERM, "setns": errno.EPERM}
    names = allowed(unit["SystemCallFilter"]) & set(known)
    return [Rule(known[each], tests.get(each, ()), refused.get(each, 0)) for each in sorted(names)]


def main(writable: str, *command: str) -> None:
    unit = service()
    filter_rules = rules(unit)
    protect_files(writable)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(int(unit["UMask"][0], 8))
    kept = [name.removeprefix("CAP_").lower() for name in " ".join(unit["CapabilityBoundingSet"]).split()]
    assert capabilities.bound(kept)
    capabilities.keep(kept)
    _libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    code = seccomp.program(platform.machine(), filter_rules, max(numbers().values()))
    problem = seccomp.install(code)
    assert not problem, problem
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
