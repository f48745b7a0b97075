"""What a worker thread may ask of the kernel: a seccomp filter, for that thread alone.

The list is what the loop and the modules' interpreter were seen to do, and what C libraries from 2.31 to 2.41
do in their place. Nothing on it runs a program, opens a file to write it, makes a socket, or reaches another
process. All else fails with EPERM, and the thread goes on: a module that tries it gets an exception, which is
counted and answered as the policy's on_failure says, and a C library that is newer than the list costs one
module's call and not the traffic of a host. What is newer than NEWEST fails with ENOSYS, as on an older
kernel, so that libraries take their older way.

Threads share their memory: this is a fence around what packets and modules make a worker do, no wall.
"""

import errno
import os
import platform
from collections.abc import Iterator

from layer45 import seccomp
from layer45.seccomp import MACHINES, Rule, Test
from layer45.syscall_numbers import ABSENT, FREE, HAS_ANOTHER_WAY, LOOKED_AT, NEWEST

OPEN_TO_CHANGE = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
WRITE, EXECUTE = 2, 4  # PROT_…
THREAD, NEW_NAMESPACES = 0x10000, 0x7E020080  # CLONE_…
TCGETS, SIOCGIFNAME, SIOCGIFMTU = 0x5401, 0x8910, 0x8921  # is it a terminal; a device's name, and its MTU
MAP_CALLS = (1, 2, 3)  # BPF_MAP_LOOKUP_ELEM, UPDATE, DELETE
DESCRIPTOR_CALLS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC
SMALL_THINGS = (15, 16, 29, 0x53564D41)  # PR_SET_NAME, GET_NAME, SET_TIMERSLACK, SET_VMA


def install() -> str:
    """For the calling thread and those it starts. Why it could not be, or nothing.

    Needs PR_SET_NO_NEW_PRIVS, or CAP_SYS_ADMIN.
    """
    machine = platform.machine()
    return seccomp.problem(machine) or seccomp.install(program(machine))


def program(machine: str) -> bytes:
    """The filter for one of seccomp.MACHINES."""
    return seccomp.program(machine, _rules(MACHINES.index(machine)), NEWEST)


def _rules(which: int) -> Iterator[Rule]:
    """In the order of the tables; which: their column."""
    tests = _tests()
    for refusal, table in ((0, FREE), (0, LOOKED_AT), (errno.ENOSYS, HAS_ANOTHER_WAY)):
        for name, numbers in table.items():
            if numbers[which] != ABSENT:
                yield Rule(numbers[which], tests.get(name, ()), refusal)


def _tests() -> dict[str, tuple[Test, ...]]:
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
        "prctl": (Test(0, SMALL_THINGS),),
        "prlimit64": (Test(0, (0, os.getpid())), Test(2), Test(2, upper=True)),  # read, not set
        "tgkill": (Test(0, (os.getpid(),)),),  # abort()
    }
