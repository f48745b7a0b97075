"""System call filters in classic BPF, seccomp(2): linux/seccomp.h, linux/filter.h, linux/bpf_common.h.

A filter holds for the thread that installs it and those it starts, and is never taken off.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass

MACHINES = ("x86_64", "aarch64")
ARCHITECTURES = dict(zip(MACHINES, (0xC000003E, 0xC00000B7), strict=True))  # AUDIT_ARCH_… of linux/audit.h
SECCOMP = dict(zip(MACHINES, (317, 277), strict=True))
SET_MODE_FILTER = 1
# Without it kernels before 5.16 slow the thread down by a defence against code that reads its own process's
# memory, which in one address space with the others it may do anyway.
FLAG_SPEC_ALLOW = 4
X32 = 0x40000000  # numbers of another way to call, from here on

LOAD, AND_CONST, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000  # the latter with an errno
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data; arguments: lower half first
WHOLE = 0xFFFFFFFF


@dataclass(frozen=True)
class Test:
    """One half of an argument, masked, is one of these."""

    argument: int
    values: tuple[int, ...] = (0,)
    mask: int = WHOLE
    upper: bool = False


@dataclass(frozen=True)
class Rule:
    """A call's number. Made if all tests hold; otherwise, or with a refusal, it fails with that errno."""

    number: int
    tests: tuple[Test, ...] = ()
    refusal: int = 0


def problem(machine: str) -> str:
    """Why there is no filter for this machine; empty where there is."""
    return "" if machine in MACHINES else f"no system call filter is known for {machine}"


def install(code: bytes) -> str:
    """For the calling thread and those it starts. Why it could not be, or nothing.

    Needs PR_SET_NO_NEW_PRIVS, or CAP_SYS_ADMIN.
    """
    text = ctypes.create_string_buffer(code, len(code))
    request = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(text)))
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (FLAG_SPEC_ALLOW, 0):  # the flag came with 4.17
        if libc.syscall(SECCOMP[platform.machine()], SET_MODE_FILTER, flags, request) == 0:
            return ""
    return f"system calls are not filtered: {os.strerror(ctypes.get_errno())}"


def program(machine: str, rules: Iterable[Rule], newest: int) -> bytes:
    """Asks the rules in their order; what none is about fails with EPERM, or ENOSYS if it is above newest."""
    code = [
        *_load(ARCHITECTURE_AT),
        _instruction(EQUAL, ARCHITECTURES[machine], 1, 0),
        *_return(errno.EPERM),
        *_load(NUMBER_AT),
    ]
    if machine == "x86_64":
        code += _when(AT_LEAST, X32, _return(errno.EPERM))
    for rule in rules:
        code += _when(EQUAL, rule.number, _judged(rule.tests) + _return(rule.refusal))
    code += _when(AT_LEAST, newest + 1, _return(errno.ENOSYS))
    return b"".join([*code, *_return(errno.EPERM)])


def _judged(tests: Iterable[Test]) -> list[bytes]:
    """Goes on at the end where all hold."""
    code: list[bytes] = []
    for test in tests:
        code += _load(ARGUMENTS_AT + 8 * test.argument + 4 * test.upper)
        if test.mask != WHOLE:
            code.append(_instruction(AND_CONST, test.mask))
        count = len(test.values)
        for place, value in enumerate(test.values):  # one that is equal goes on behind the refusal
            code.append(_instruction(EQUAL, value, count - place))
        code += _return(errno.EPERM)
    return code


def _when(comparison: int, value: int, then: list[bytes]) -> list[bytes]:
    return [_instruction(comparison, value, 0, len(then)), *then]


def _load(offset: int) -> list[bytes]:
    return [_instruction(LOAD, offset)]


def _return(refusal: int) -> list[bytes]:
    """0: the call is made."""
    return [_instruction(RETURN, FAIL | refusal if refusal else ALLOW)]


def _instruction(code: int, constant: int, when: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("<HBBI", code, when, otherwise, constant)
