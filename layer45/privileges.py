"""What each thread of the daemon may do, and when the rest goes. capabilities(7), seccomp(2)

    main      the event loop                   nothing, once the control socket is open
    control   all work on rules and sockets    network and BPF; can raise, around what needs it: looking into
                                               processes, making cgroups, a BPF file system of our own
    launcher nothing, or starts a successor    none; can have what a daemon starts with
    worker    packets and modules              network, and the system calls of syscall_filter.py

Programs that the daemon runs (iptables, nft) get CHILDREN at most, and none of them can have more by being
set-uid: that is what "no new privileges" means. What the daemon has not in the first place, in a container
for example, is not missed here.
"""

import contextlib
import ctypes
import errno
import resource
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from layer45 import syscall_filter
from layer45.cgroups import MAKING
from layer45.rules import bpf, capabilities, pins

Thread = Literal["main", "control", "worker"]

NETWORK = frozenset(("net_admin", "net_raw"))
CHILDREN = NETWORK | {"bpf"}  # bpf: for kernels before 5.19 that refuse a pinned program to others
# Once, while it starts: the group of the control socket, locked memory for maps (before Linux 5.11), modprobe
# as legacy iptables runs it, and the bounding set itself.
STARTING = frozenset(("chown", "sys_resource", "sys_module", "setpcap"))
NO_DESCRIPTOR = 0xFFFFFFFF
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38

_libc = ctypes.CDLL(None, use_errno=True)
_launcher = ThreadPoolExecutor(1, thread_name_prefix="layer45-launcher")
_problems: set[str] = set()  # why threads are less confined than they could be


def begin() -> None:
    """The first thing in the daemon's process, before it has a second thread: what it never needs goes.

    So a configuration that cannot be read without it is refused now, and not at a reload. No core is dumped:
    people's packets are in it. Each chain in the kernel is a descriptor.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    starting = STARTING | _in_use() | _raisable()
    capabilities.bound(starting)
    capabilities.keep(starting, STARTING | _in_use())
    _launcher.submit(capabilities.keep, starting, ()).result()
    capabilities.bound(CHILDREN | {"sys_module"})


def start_daemon(words: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Another daemon, that can have what this one had when it started. Raises OSError."""
    return _launcher.submit(subprocess.Popen, words, env=environment).result()


def keep_least(thread: Thread) -> None:
    """The calling thread is the main or control one and has started, or is a worker and is going to."""
    if thread == "main":
        _keep_none()
    elif thread == "control":
        capabilities.bound(CHILDREN)
        capabilities.keep(_in_use() | _raisable(), _in_use())
    else:
        _confine_worker()


def try_filter() -> str:
    """Why workers' system calls cannot be filtered here, or nothing; no thread of the caller's is changed."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(_filter).result()


def problems() -> list[str]:
    """Why some thread is less confined than it could be."""
    return sorted(_problems)


def _in_use() -> frozenset[str]:
    return NETWORK | _for_bpf()


def _for_bpf() -> frozenset[str]:
    """perfmon: the tagger's program reads the kernel's memory. Before Linux 5.8, all of it is sys_admin's."""
    return frozenset(("bpf", "perfmon") if "bpf" in capabilities.permitted() else ("sys_admin",))


def _raisable() -> frozenset[str]:
    """sys_admin where the host has no BPF file system: a policy may need one, and the end unmounts it."""
    raisable = frozenset((*capabilities.LOOKING, *MAKING))
    return raisable if pins.of_the_host() else raisable | {"sys_admin"}


def _keep_none() -> None:
    capabilities.bound(())
    capabilities.keep(())


def _confine_worker() -> None:
    capabilities.bound(CHILDREN)  # which later ones have from the start; they run no program
    for_maps = _for_bpf() - {"perfmon"}
    capabilities.keep({"net_admin"} | for_maps, ("net_admin",))
    capabilities.keep({"net_admin"} | for_maps if _maps_refused() else {"net_admin"})
    problem = _filter()
    if problem:
        _problems.add(problem)


def _filter() -> str:
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return syscall_filter.install()


def _maps_refused() -> bool:
    """Whether this thread may not use the map of known connections.

    Up to Linux 5.18 it may not, where kernel.unprivileged_bpf_disabled is set.
    """
    try:
        bpf.lookup(NO_DESCRIPTOR, bytes(4), 4)
    except OSError as error:
        return error.errno == errno.EPERM
    return False
