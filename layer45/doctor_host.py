"""Doctor: programs, Python packages, compiled parts, privileges and limits."""

import importlib
import importlib.util
import os
import platform
import re
import resource
import shutil
from pathlib import Path

from layer45.doctor import Finding, found
from layer45.privileges import try_filter
from layer45.rules import capabilities

OLDEST_KERNEL = (4, 14)
CAPABILITIES = {
    "net_admin": "queues, rules and marks",
    "net_raw": "copies",
    "bpf": "matching programs",
    "perfmon": "matching programs",
    "sys_ptrace": "attach, sockets, explain, apply_now",
    "dac_read_search": "attach, sockets, explain, apply_now",
    "dac_override": "making cgroups",
}  # and what the daemon has them for
PROGRAMS = {"iptables": "iptables", "ip6tables": "iptables", "nft": "nftables", "ip": "iproute2"}
PACKAGES = ("netfilterqueue", "msgspec", "structlog", "Cython", "setuptools", "scapy", "numpy")
FEWEST_FILES = 1024
CONNTRACK_MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")
CONNTRACK_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")


def examine() -> list[Finding]:
    """Every check of this file."""
    return [
        kernel_version(platform.release()),
        *map(program, PROGRAMS),
        rule_program(),
        *map(package, PACKAGES),
        *compiled(),
        *map(capability, CAPABILITIES),
        system_calls(),
        open_files(),
        conntrack_room(),
    ]


def kernel_version(release: str) -> Finding:
    """NFQUEUE with GSO, cgroup v2 and the BPF hook are all in 4.14."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    oldest = ".".join(map(str, OLDEST_KERNEL))
    return found(
        "kernel", "version", numbers >= OLDEST_KERNEL, release, f"boot a kernel of {oldest} or later", True
    )


def program(name: str) -> Finding:
    """A program of the host."""
    path = shutil.which(name, path=search_path())
    return found("programs", name, path is not None, path or "not found", f"apt-get install {PROGRAMS[name]}")


def rule_program() -> Finding:
    """One of the two backends' programs is enough."""
    names = [name for name in ("iptables", "nft") if shutil.which(name, path=search_path())]
    return found("programs", "iptables or nft", bool(names), " ".join(names) or "neither",
                 "apt-get install iptables", True)  # fmt: skip


def search_path() -> str:
    """PATH and the places of system programs, which a user's PATH often lacks."""
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


def package(name: str) -> Finding:
    """A Python package; NetfilterQueue is really imported, for it needs its C library."""
    try:
        present = importlib.util.find_spec(name) is not None
        if name == "netfilterqueue":
            importlib.import_module(name)
        detail = "importable" if present else "not installed"
    except ImportError as error:
        present, detail = False, str(error)
    needed = name in ("netfilterqueue", "msgspec", "structlog")
    mend = (
        "apt-get install libnetfilter-queue-dev; pip install NetfilterQueue"
        if name == "netfilterqueue"
        else ""
    )
    return found("python", name, present, detail, mend or f"pip install {name}", needed)


def compiled() -> list[Finding]:
    """Every extension of the fast path and of the shipped modules; installed ones come without sources."""
    home = Path(__file__).parent
    files = [path for ending in ("pyx", "so") for place in ("fastpath", "modules/*")
             for path in home.glob(f"{place}/*.{ending}")]  # fmt: skip
    names = {".".join((*path.relative_to(home).parts[:-1], path.name.split(".")[0])) for path in files}
    return [_compiled(f"layer45.{name}") for name in sorted(names)]


def _compiled(name: str) -> Finding:
    try:
        importlib.import_module(name)
        detail = "importable"
    except ImportError as error:
        detail = " ".join(str(error).splitlines())
    return found("compiled", name, detail == "importable", detail, "make build", required=True)


def capability(name: str) -> Finding:
    """A privilege of this process; the daemon cannot do without the first ones."""
    permitted = capabilities.permitted()
    held = name in permitted or (name in ("bpf", "perfmon") and "sys_admin" in permitted)  # before 5.8
    needed = name in ("net_admin", "net_raw")
    return found(
        "privileges",
        f"CAP_{name.upper()}",
        held,
        f"{'held' if held else 'not held'}: {CAPABILITIES[name]}",
        "sudo layer45 doctor",
        needed,
    )


def system_calls() -> Finding:
    """Whether workers can be kept from what they never do; tried in a thread that ends with it."""
    failure = try_filter()
    mend = "boot a kernel with CONFIG_SECCOMP_FILTER; other machines than x86_64 and aarch64 have none yet"
    return found("privileges", "system call filter", not failure, failure or "works", mend)


def open_files() -> Finding:
    """Sockets, queues and one directory a policy."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= FEWEST_FILES
    return found("limits", "open files", enough, str(soft), f"ulimit -n {FEWEST_FILES}")


def conntrack_room() -> Finding:
    """A full conntrack table drops new connections of the whole host."""
    try:
        most, now = int(CONNTRACK_MAX.read_text()), int(CONNTRACK_COUNT.read_text())
    except OSError:
        return found(
            "limits", "nf_conntrack_max", False, "conntrack is not loaded yet", "modprobe nf_conntrack"
        )
    mend = f"sysctl -w net.netfilter.nf_conntrack_max={most * 2}"
    return found("limits", "nf_conntrack_max", now < most * 0.8, f"{now} of {most} in use", mend)
