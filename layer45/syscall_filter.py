"""What a worker thread may ask of the kernel: a seccomp filter, seccomp(2), for that thread alone.

The list is what the loop and the modules' interpreter were seen to do, and what C libraries from 2.31 to 2.41
do in their place. Nothing on it runs a program, opens a file to write it, makes a socket, or reaches another
process. All else fails with EPERM, and the thread goes on: a module that tries it gets an exception, which is
counted and answered as the policy's on_failure says, and a C library that is newer than the list costs one
module's call and not the traffic of a host. What is newer than NEWEST fails with ENOSYS, as on an older
kernel, so that libraries take their older way.

Threads share their memory: this is a fence around what packets and modules make a worker do, no wall.
"""

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass

from layer45.syscall_numbers import (
    ABSENT,
    ARCHITECTURES,
    FREE,
    HAS_ANOTHER_WAY,
    LOOKED_AT,
    MACHINES,
    NEWEST,
)

SECCOMP = {"x86_64": 317, "aarch64": 277}
SET_MODE_FILTER = 1
# Without it kernels before 5.16 slow the thread down by a defence against code that reads its own process's
# memory, which in one address space with the others it may do anyway.
FLAG_SPEC_ALLOW = 4
X32 = 0x40000000  # numbers of another way to call, from here on

LOAD, AND_CONST, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06  # linux/bpf_common.h
ALLOW, FAIL = 0x7FFF0000, 0x00050000  # the latter with an errno
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data; arguments: lower half first

OPEN_TO_CHANGE = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
WRITE, EXECUTE = 2, 4  # PROT_…
THREAD, NEW_NAMESPACES = 0x10000, 0x7E020080  # CLONE_…
TCGETS, SIOCGIFNAME, SIOCGIFMTU = 0x5401, 0x8910, 0x8921  # is it a terminal; a device's name, and its MTU
MAP_CALLS = (1, 2, 3)  # BPF_MAP_LOOKUP_ELEM, UPDATE, DELETE
DESCRIPTOR_CALLS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC
NAMING = (15, 16, 0x53564D41)  # PR_SET_NAME, GET_NAME, SET_VMA


@dataclass(frozen=True)
class Test:
    """One half of an argument, masked, is one of these."""

    argument: int
    values: tuple[int, ...] = (0,)
    mask: int = 0xFFFFFFFF
    upper: bool = False


def tests() -> dict[str, tuple[Test, ...]]:
    """Of each call that is looked at: all must hold.

    The kernel, too, reads only the lower halves of these arguments, but of pointers.
    """
    return {
        "bpf": (Test(0, MAP_CALLS),),
        "open": (Test(1, mask=OPEN_TO_CHANGE),),
        "openat": (Test(2, mask=OPEN_TO_CHANGE),),
        "mmap": (Test(2, (0, WRITE, EXECUTE), WRITE | EXECUTE),),
        "mprotect": (Test(2, mask=EXECUTE),),
        "clone": (Test(0, (THREAD,), THREAD | NEW_NAMESPACES),),
        "ioctl": (Test(1, (TCGETS, SIOCGIFNAME, SIOCGIFMTU)),),
        "fcntl": (Test(1, DESCRIPTOR_CALLS),),
        "prctl": (Test(0, NAMING),),
        "prlimit64": (Test(0, (0, os.getpid())), Test(2), Test(2, upper=True)),  # read, not set
        "tgkill": (Test(0, (os.getpid(),)),),  # abort()
    }


def problem(machine: str = "") -> str:
    """Why there is no filter for this machine; empty where there is."""
    machine = machine or platform.machine()
    return "" if machine in MACHINES else f"no system call filter is known for {machine}"


def install() -> str:
    """For the calling thread and those it starts. Why it could not be, or nothing.

    Needs PR_SET_NO_NEW_PRIVS, or CAP_SYS_ADMIN.
    """
    machine = platform.machine()
    if problem(machine):
        return problem(machine)
    code = program(machine)
    text = ctypes.create_string_buffer(code, len(code))
    request = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(text)))
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (FLAG_SPEC_ALLOW, 0):  # the flag came with 4.17
        if libc.syscall(SECCOMP[machine], SET_MODE_FILTER, flags, request) == 0:
            return ""
    return f"system calls are not filtered: {os.strerror(ctypes.get_errno())}"


def program(machine: str) -> bytes:
    """The filter, in classic BPF: linux/filter.h, linux/seccomp.h."""
    which = MACHINES.index(machine)
    code = [
        *_load(ARCHITECTURE_AT),
        *_unless(EQUAL, ARCHITECTURES[which], _return(errno.EPERM)),
        *_load(NUMBER_AT),
    ]
    if machine == "x86_64":
        code += _when(AT_LEAST, X32, _return(errno.EPERM))
    for numbers in FREE.values():
        code += _when_called(numbers[which], _return(0))
    looked_at = tests()
    for name, numbers in LOOKED_AT.items():
        code += _when_called(numbers[which], _judged(looked_at[name]))
    for numbers in HAS_ANOTHER_WAY.values():
        code += _when_called(numbers[which], _return(errno.ENOSYS))
    code += _when(AT_LEAST, NEWEST + 1, _return(errno.ENOSYS))
    return b"".join([*code, *_return(errno.EPERM)])


def _judged(those: tuple[Test, ...]) -> list[bytes]:
    """Ends with an answer."""
    code: list[bytes] = []
    for test in those:
        code += _load(ARGUMENTS_AT + 8 * test.argument + 4 * test.upper)
        if test.mask != 0xFFFFFFFF:
            code.append(_instruction(AND_CONST, test.mask))
        count = len(test.values)
        for place, value in enumerate(test.values):  # a match goes on behind the refusal
            code.append(_instruction(EQUAL, value, count - place))
        code += _return(errno.EPERM)
    return [*code, *_return(0)]


def _when_called(number: int, then: list[bytes]) -> list[bytes]:
    return [] if number == ABSENT else _when(EQUAL, number, then)


def _when(comparison: int, value: int, then: list[bytes]) -> list[bytes]:
    return [_instruction(comparison, value, 0, len(then)), *then]


def _unless(comparison: int, value: int, then: list[bytes]) -> list[bytes]:
    return [_instruction(comparison, value, len(then), 0), *then]


def _load(offset: int) -> list[bytes]:
    return [_instruction(LOAD, offset)]


def _return(refusal: int) -> list[bytes]:
    """0: the call is made."""
    return [_instruction(RETURN, FAIL | refusal if refusal else ALLOW)]


def _instruction(code: int, constant: int, when: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("<HBBI", code, when, otherwise, constant)
