"""The filter of worker threads: the kernel's numbers, the answers that it promises; then a real one."""

import errno
import mmap
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from layer45 import syscall_filter
from layer45.seccomp import ARCHITECTURES, MACHINES, problem
from layer45.syscall_numbers import ABSENT, FREE, HAS_ANOTHER_WAY, LOOKED_AT, NEWEST

from .classic_bpf import ALLOWED, refusal

HEADERS = {"x86_64": "/usr/include/*/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
GENERIC_NAMES = {"newfstatat": "fstatat"}  # what asm-generic calls it on 64-bit machines
DANGERS = (
    "execve", "execveat", "ptrace", "mount", "umount2", "kill", "tkill", "rt_sigqueueinfo",
    "pidfd_send_signal", "unshare", "setns", "keyctl", "add_key", "io_uring_setup", "io_uring_enter",
    "socket", "socketpair", "bind", "listen", "accept4", "setsockopt", "pidfd_open", "pidfd_getfd",
    "process_vm_readv", "process_vm_writev", "unlinkat", "renameat2", "mkdirat", "fchmod", "fchmodat",
    "fchown", "truncate", "ftruncate", "pwrite64", "init_module", "finit_module", "kexec_load", "setuid",
    "setresuid", "setgroups", "capset", "seccomp", "perf_event_open", "userfaultfd", "memfd_create",
    "chroot", "pivot_root", "open_by_handle_at", "swapon", "reboot", "settimeofday", "clock_settime",
    "setrlimit", "setpriority", "sched_setaffinity", "fsopen", "move_mount", "open_tree", "personality",
    "pkey_mprotect", "shmget", "shmat", "wait4", "waitid",
)  # fmt: skip
ELSEWHERE = 0x40000003  # AUDIT_ARCH_I386: int 0x80 in a 64-bit process


def numbers(machine: str) -> dict[str, int]:
    """Of the kernel's headers."""
    found = sorted(Path("/").glob(HEADERS[machine].removeprefix("/")))
    if not found:
        pytest.skip(f"no kernel headers for {machine} here")
    text = found[0].read_text()
    generic = dict(re.findall(r"#define __NR3264_(\w+) (\d+)", text))
    named = dict(re.findall(r"#define __NR_(\w+) (\d+)", text))
    return {name: int(number) for name, number in (generic | named).items()}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_the_kernels(machine: str) -> None:
    known = numbers(machine)
    column = MACHINES.index(machine)
    for name, ours in {**FREE, **LOOKED_AT, **HAS_ANOTHER_WAY}.items():
        wanted = known.get(name, known.get(GENERIC_NAMES.get(name, ""), ABSENT))
        assert ours[column] == wanted, name


@pytest.mark.parametrize("machine", MACHINES)
def test_what_would_be_dangerous_is_refused(machine: str) -> None:
    known, code = numbers(machine), syscall_filter.program(machine)
    answers = {name: refusal(code, ARCHITECTURES[machine], known[name]) for name in DANGERS if name in known}
    assert set(answers.values()) == {errno.EPERM}
    assert len(answers) > 60


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_has_the_answer_of_its_table(machine: str) -> None:
    code, column = syscall_filter.program(machine), MACHINES.index(machine)
    free = {ours[column] for ours in FREE.values()}
    another_way = {ours[column] for ours in HAS_ANOTHER_WAY.values()}
    looked_at = {ours[column] for ours in LOOKED_AT.values()}
    for number in set(range(NEWEST + 100)) - looked_at:
        newer = number > NEWEST or number in another_way
        wanted = ALLOWED if number in free else errno.ENOSYS if newer else errno.EPERM
        assert refusal(code, ARCHITECTURES[machine], number) == wanted, number


def test_other_ways_to_call_are_refused() -> None:
    code = syscall_filter.program("x86_64")
    read, x32 = FREE["read"][0], 0x40000000
    assert refusal(code, ARCHITECTURES["x86_64"], read) == ALLOWED
    assert refusal(code, ELSEWHERE, read) == errno.EPERM
    assert refusal(code, ARCHITECTURES["x86_64"], x32 | read) == errno.EPERM


PTHREAD = 0x3D0F00  # the flags of pthread_create
FORK = 0x1200011  # and of fork
OWN = os.getpid()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("bpf", (1,), ALLOWED), ("bpf", (2,), ALLOWED), ("bpf", (3,), ALLOWED),
        ("bpf", (0,), errno.EPERM), ("bpf", (5,), errno.EPERM), ("bpf", (6,), errno.EPERM),
        ("openat", (0, 0, os.O_CLOEXEC), ALLOWED),
        ("openat", (0, 0, os.O_DIRECTORY | os.O_NOFOLLOW), ALLOWED),
        ("openat", (0, 0, os.O_WRONLY), errno.EPERM), ("openat", (0, 0, os.O_RDWR), errno.EPERM),
        ("openat", (0, 0, os.O_CREAT), errno.EPERM), ("openat", (0, 0, os.O_TRUNC), errno.EPERM),
        ("openat", (0, 0, os.O_TMPFILE | os.O_WRONLY), errno.EPERM),
        ("mmap", (0, 0, 0), ALLOWED), ("mmap", (0, 0, 3), ALLOWED), ("mmap", (0, 0, 5), ALLOWED),
        ("mmap", (0, 0, 6), errno.EPERM), ("mmap", (0, 0, 7), errno.EPERM),
        ("mprotect", (0, 0, 3), ALLOWED), ("mprotect", (0, 0, 5), errno.EPERM),
        ("clone", (PTHREAD,), ALLOWED), ("clone", (FORK,), errno.EPERM),
        ("clone", (PTHREAD | 0x40000000,), errno.EPERM),
        ("fcntl", (0, 1), ALLOWED), ("fcntl", (0, 8), errno.EPERM),
        ("prctl", (15,), ALLOWED), ("prctl", (4,), errno.EPERM),
        ("prlimit64", (0, 7, 0), ALLOWED), ("prlimit64", (OWN, 7, 0), ALLOWED),
        ("prlimit64", (1, 7, 0), errno.EPERM), ("prlimit64", (0, 7, 0x1000), errno.EPERM),
        ("prlimit64", (0, 7, 1 << 32), errno.EPERM),
        ("tgkill", (OWN, OWN, 6), ALLOWED), ("tgkill", (1, 1, 9), errno.EPERM),
        ("ioctl", (0, 0x8921), ALLOWED), ("ioctl", (0, 0x5401), ALLOWED),
        ("ioctl", (0, 0x5412), errno.EPERM),  # TIOCSTI: types into a terminal
    ],
)  # fmt: skip
def test_arguments_are_looked_at(machine: str, name: str, arguments: tuple[int, ...], answer: int) -> None:
    number = LOOKED_AT[name][MACHINES.index(machine)]
    code = syscall_filter.program(machine)
    assert refusal(code, ARCHITECTURES[machine], number, arguments) == answer


def test_a_machine_that_is_not_known_has_no_filter_and_says_so() -> None:
    assert problem("mips64") == "no system call filter is known for mips64"


def in_a_filtered_thread(work: Callable[[], object]) -> object:
    """What work returns, or the OSError's errno. The filter ends with the thread."""
    done: list[object] = []

    def run() -> None:
        assert syscall_filter.install() == ""
        try:
            done.append(work())
        except OSError as error:
            done.append(error.errno)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    return done[0]


def writes(path: Path) -> None:
    path.write_text("x")


@pytest.mark.root
@pytest.mark.parametrize(
    "work",
    [
        os.fork, socket.socket, lambda: os.kill(1, 0), lambda: subprocess.run(["true"], check=True),
        lambda: os.execv("/bin/true", ["true"]), lambda: mmap.mmap(-1, 4096, prot=7),
        lambda: os.memfd_create("x"), lambda: os.pidfd_open(1), lambda: Path("/nowhere").chmod(0),
    ],
)  # fmt: skip
def test_the_kernel_refuses(work: Callable[[], object]) -> None:
    assert in_a_filtered_thread(work) == errno.EPERM


@pytest.mark.root
def test_files_are_read_and_not_written(tmp_path: Path) -> None:
    there, fresh = tmp_path / "there", tmp_path / "fresh"
    there.write_text("before")
    assert in_a_filtered_thread(there.read_text) == "before"
    assert in_a_filtered_thread(lambda: writes(there)) == errno.EPERM
    assert in_a_filtered_thread(lambda: writes(fresh)) == errno.EPERM
    assert in_a_filtered_thread(there.unlink) == errno.EPERM
    assert there.read_text() == "before" and not fresh.exists()


@pytest.mark.root
def test_a_thread_goes_on_as_threads_do() -> None:
    """Time, memory, random numbers, threads, a library that is loaded late, an exception caught."""

    def live() -> list[object]:
        import _elementtree  # noqa: F401  maps code

        begun = time.monotonic()
        time.sleep(0.01)
        blocks = [bytearray(1 << size) for size in range(25)]
        heard: list[int] = []
        threads = [threading.Thread(target=heard.append, args=(each,)) for each in range(3)]
        for thread in threads:
            thread.start()
            thread.join()
        try:
            raise ValueError
        except ValueError:
            heard.append(3)
        return [time.monotonic() - begun >= 0.01, len(blocks), heard, len(os.urandom(8))]

    assert in_a_filtered_thread(live) == [True, 25, [0, 1, 2, 3], 8]


@pytest.mark.root
def test_only_the_thread_that_asked_is_filtered() -> None:
    assert in_a_filtered_thread(os.fork) == errno.EPERM
    assert subprocess.run(["true"], check=False).returncode == 0
