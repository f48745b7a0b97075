"""The system calls of a worker thread, with their numbers on the machines of seccomp.MACHINES, in that order.

linux/arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h have the numbers; a test
compares. Those that the loop makes for packets come first: a kernel before 5.11 tries one after the other.
"""

ABSENT = -1
NEWEST = 450  # the last one that was known when this was written; 424 and up have one number everywhere

# Whatever their arguments. None of them makes a descriptor for anything but a file that exists, to be read.
FREE = {
    "recvmmsg": (299, 243), "sendmsg": (46, 211), "sendmmsg": (307, 269), "ppoll": (271, 73),
    "read": (0, 63), "futex": (202, 98), "clock_gettime": (228, 113), "sendto": (44, 206),
    "recvfrom": (45, 207), "recvmsg": (47, 212), "connect": (42, 203), "getsockopt": (55, 209),
    "poll": (7, ABSENT), "select": (23, ABSENT), "pselect6": (270, 72), "write": (1, 64),
    "writev": (20, 66), "close": (3, 57), "lseek": (8, 62), "pread64": (17, 67), "readv": (19, 65),
    "fstat": (5, 80), "stat": (4, ABSENT), "lstat": (6, ABSENT), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, ABSENT), "faccessat": (269, 48), "readlink": (89, ABSENT),
    "readlinkat": (267, 78), "getdents64": (217, 61), "getcwd": (79, 17), "dup": (32, 23), "brk": (12, 214),
    "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233), "membarrier": (324, 283),
    "getrandom": (318, 278), "gettimeofday": (96, 169), "time": (201, ABSENT), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "getcpu": (309, 168), "getpid": (39, 172), "gettid": (186, 178),
    "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "uname": (63, 160), "sysinfo": (99, 179), "times": (100, 153),
    "getrusage": (98, 165), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293),
    "set_tid_address": (218, 96), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip

# By their arguments: syscall_filter.py.
LOOKED_AT = {
    "bpf": (321, 280), "open": (2, ABSENT), "openat": (257, 56), "mmap": (9, 222), "mprotect": (10, 226),
    "clone": (56, 220), "ioctl": (16, 29), "fcntl": (72, 25), "prctl": (157, 167), "prlimit64": (302, 261),
    "tgkill": (234, 131),
}  # fmt: skip

# What the C library has an older way for, whose arguments can be looked at.
HAS_ANOTHER_WAY = {
    "clone3": (435, 435), "openat2": (437, 437), "faccessat2": (439, 439), "epoll_pwait2": (441, 441),
    "futex_waitv": (449, 449),
}  # fmt: skip
