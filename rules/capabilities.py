"""What the calling thread may do beyond what any root program may: its capabilities, capabilities(7).

Each thread has sets of its own, and one that it starts begins with the same. permitted: what it can have.
effective: what the kernel asks now. bounding: what programs that it runs can have at most.
"""

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Collection, Iterator

# In the order of their numbers, linux/capability.h.
NAMES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip
# Others' executables and descriptors: the directory of the latter is open to their user alone. Who may trace
# a process has what it can read, so the second gives hardly more than the first.
LOOKING = ("sys_ptrace", "dac_read_search")
MOST = 64  # numbers in a set; those that the kernel does not know are in none
VERSION_3 = 0x20080522  # sets of 64 bits, as two halves
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_CAP_AMBIENT, CLEAR_ALL = 23, 24, 47, 4

_libc = ctypes.CDLL(None, use_errno=True)
_HALVES = struct.Struct("=6I")  # effective, permitted, inheritable: the lower halves, then the upper ones


def permitted() -> frozenset[str]:
    """What this thread can have."""
    return named(_read()[1])


def keep(wanted: Collection[str], effective: Collection[str] | None = None) -> None:
    """Gives up all but these, for ever; what the thread has not is not asked for.

    effective: those of them that are in use from now on, None: all. Programs that the thread runs inherit
    none: as root's they have the bounding set; with "no new privileges", of that what is permitted here.
    """
    left = _bits(wanted) & _read()[1]
    _write(left if effective is None else left & _bits(effective), left)
    _libc.prctl(PR_CAP_AMBIENT, CLEAR_ALL, 0, 0, 0)


def bound(wanted: Collection[str]) -> bool:
    """Takes all but these from the bounding set. False: the thread may not (no CAP_SETPCAP)."""
    kept = _bits(wanted)
    bounding = [each for each in range(MOST) if _libc.prctl(PR_CAPBSET_READ, each, 0, 0, 0) == 1]
    unwanted = [each for each in bounding if not kept >> each & 1]
    return all(_libc.prctl(PR_CAPBSET_DROP, each, 0, 0, 0) == 0 for each in unwanted)


@contextlib.contextmanager
def raised(*names: str) -> Iterator[None]:
    """While it lasts, those of these that the thread can have are in use. Also a decorator."""
    effective, can, _ = _read()
    more = _bits(names) & can & ~effective
    if not more:
        yield
        return
    _write(effective | more, can)
    try:
        yield
    finally:
        _write(effective, can)


def named(bits: int) -> frozenset[str]:
    """Of a set as /proc/PID/status has it: one that we have no name for is known by its number."""
    numbers = (number for number in range(bits.bit_length()) if bits >> number & 1)
    return frozenset(NAMES[each] if each < len(NAMES) else str(each) for each in numbers)


def _bits(names: Collection[str]) -> int:
    return sum(1 << NAMES.index(name) for name in set(names))


def _read() -> tuple[int, int, int]:
    """Effective, permitted, inheritable."""
    content = ctypes.create_string_buffer(_HALVES.size)
    _call(_libc.capget, content)
    halves = _HALVES.unpack(content.raw)
    return halves[0] | halves[3] << 32, halves[1] | halves[4] << 32, halves[2] | halves[5] << 32


def _write(effective: int, can: int) -> None:
    halves = [each >> shift & 0xFFFFFFFF for shift in (0, 32) for each in (effective, can, 0)]
    _call(_libc.capset, ctypes.create_string_buffer(_HALVES.pack(*halves), _HALVES.size))


def _call(function: "ctypes._NamedFuncPointer", content: "ctypes.Array[ctypes.c_char]") -> None:
    """Raises OSError."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", VERSION_3, 0), 8)
    if function(header, content):
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, f"capabilities: {os.strerror(number)}")
