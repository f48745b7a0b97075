"""Doctor: what the kernel's netfilter, cgroups and BPF can do, found out by trying.

Each try has a network namespace of its own, which ends with it: the host's rules are never touched.
"""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from layer45 import cgroups
from layer45.doctor import Finding, found
from layer45.doctor_host import search_path
from layer45.errors import Layer45Error
from layer45.rules import bpf, kernel_types, socket_end
from layer45.rules.errors import RulesError

TRY_TIME_OUT_S = 15
ALWAYS_ONE = bytes.fromhex("b700000001000000 9500000000000000")  # a program


@dataclass(frozen=True)
class Rule:
    """A rule to try."""

    check: str
    iptables: str  # arguments
    mend: str


@dataclass(frozen=True)
class Ruleset:
    """The same for nft."""

    check: str
    text: str
    mend: str


IPTABLES_RULES = (
    Rule("NFQUEUE target", "-t mangle -A OUTPUT -j NFQUEUE --queue-bypass", "modprobe xt_NFQUEUE"),
    Rule("NFQUEUE in raw", "-t raw -A OUTPUT -j NFQUEUE --queue-num 1", "modprobe iptable_raw"),
    Rule("NFLOG target", "-t mangle -A OUTPUT -j NFLOG --nflog-group 1", "modprobe xt_NFLOG"),
    Rule("DSCP target", "-t mangle -A OUTPUT -j DSCP --set-dscp 0", "modprobe xt_DSCP"),
    Rule("owner match", "-t mangle -A OUTPUT -m owner --uid-owner 0", "modprobe xt_owner"),
    Rule("cgroup match", "-t mangle -A OUTPUT -m cgroup --path /", "modprobe xt_cgroup"),
    Rule("socket match", "-t mangle -A INPUT -m socket --nowildcard --restore-skmark", "modprobe xt_socket"),
    Rule("bpf match", '-t mangle -A OUTPUT -m bpf --bytecode "1,6 0 0 0"', "modprobe xt_bpf"),
    Rule("conntrack marks", "-t mangle -A OUTPUT -j CONNMARK --set-xmark 0x1/0x1", "modprobe xt_connmark"),
    Rule("conntrack state", "-t mangle -A OUTPUT -m conntrack --ctstate NEW", "modprobe xt_conntrack"),
    Rule("MSS clamp", "-t mangle -A POSTROUTING -p tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 1000",
         "modprobe xt_TCPMSS"),
)  # fmt: skip

_CHAIN = "table inet probe {{ chain c {{ type filter hook output priority 0; {} \n }}\n }}\n"
NFT_RULESETS = (
    Ruleset("nft tables", _CHAIN.format(""), "modprobe nf_tables"),
    Ruleset("nft queue", _CHAIN.format("queue num 1 bypass"), "modprobe nft_queue"),
    Ruleset("nft log", _CHAIN.format("log group 1"), "modprobe nft_log"),
    Ruleset("nft conntrack", _CHAIN.format("ct mark set 1"), "modprobe nft_ct"),
    Ruleset("nft socket", _CHAIN.format("meta skuid 0 accept"), "modprobe nft_socket"),
)


def examine() -> list[Finding]:
    """Every check of this file."""
    tries = [*map(iptables_rule, IPTABLES_RULES), *map(nft_ruleset, NFT_RULESETS)]
    bpf_checks = [sock_create(), type_information(), socket_filter(), socket_destroy()]
    return [one_queue_rule(tries), *tries, cgroup_mount(), *bpf_checks]


def one_queue_rule(tries: list[Finding]) -> Finding:
    """Either backend's queue statement will do."""
    ways = {"iptables": "NFQUEUE target", "nft": "nft queue"}
    able = [way for way, check in ways.items() if any(t.check == check and t.result == "ok" for t in tries)]
    return found(
        "netfilter", "a way to the queue", bool(able), " ".join(able) or "none", "modprobe xt_NFQUEUE", True
    )


def iptables_rule(rule: Rule) -> Finding:
    """Tries a rule in IPv4 and in IPv6."""
    if shutil.which("iptables", path=search_path()) is None:
        return found("netfilter", rule.check, False, "no iptables to try it with", "apt-get install iptables")
    failures = [
        complaint for name in ("iptables", "ip6tables") if (complaint := _try(f"{name} {rule.iptables}"))
    ]
    detail = failures[0] if failures else "IPv4 and IPv6"
    return found("netfilter", rule.check, not failures, detail, _mend(rule.mend))


def nft_ruleset(ruleset: Ruleset) -> Finding:
    """Tries a table."""
    if shutil.which("nft", path=search_path()) is None:
        return found("netfilter", ruleset.check, False, "no nft to try it with", "apt-get install nftables")
    complaint = _try("nft -f -", ruleset.text)
    return found("netfilter", ruleset.check, not complaint, complaint or "works", _mend(ruleset.mend))


def _mend(command: str) -> str:
    """A module that this kernel was built without cannot be loaded; without root nothing was tried."""
    if os.geteuid() != 0:
        return "sudo layer45 doctor"
    module = command.removeprefix("modprobe ")
    if module == command or kernel_has(module):
        return command
    return f"boot a kernel that has {module} (Debian: apt-get install linux-image-{architecture()})"


def kernel_has(module: str) -> bool:
    """Whether the running kernel's modules, loadable or built in, name it; no list is no modules."""
    lists = [Path("/lib/modules") / platform.release() / name for name in ("modules.dep", "modules.builtin")]
    return any(f"/{module}.ko" in path.read_text() for path in lists if path.is_file())


def architecture() -> str:
    """As Debian names its kernels."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _try(command: str, text: str = "") -> str:
    """Runs a command in a fresh namespace. Its complaint, in one line; empty when it worked."""
    if os.geteuid() != 0:
        return "not tried: needs root"
    environment = {**os.environ, "PATH": search_path()}
    try:
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", command],
            input=text, env=environment, capture_output=True, text=True, timeout=TRY_TIME_OUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return lines[0].strip() if done.returncode else ""


def cgroup_mount() -> Finding:
    """Where programs are put by `exec`."""
    try:
        return found("cgroups", "cgroup v2", True, str(cgroups.mount_point()), "", True)
    except Layer45Error:
        return found(
            "cgroups", "cgroup v2", False, "not mounted", "mount -t cgroup2 none /sys/fs/cgroup", True
        )


def sock_create() -> Finding:
    """Loads, and attaches nowhere, the smallest program that could tag a socket when it is made."""
    mend = "boot a kernel with CONFIG_CGROUP_BPF (matching programs needs it)"
    failure = _load(bpf.PROG_TYPE_CGROUP_SOCK, bpf.ATTACH_SOCK_CREATE)
    return found("bpf", "cgroup/sock_create", not failure, failure or "loads", _mend(mend))


def type_information() -> Finding:
    """Whether executables can be told, and names are those of processes."""
    try:
        kernel_types.offsets()
        failure = ""
    except RulesError as error:
        failure = str(error)
    mend = "boot a kernel with CONFIG_DEBUG_INFO_BTF (matching executables needs it)"
    return found("bpf", "executables", not failure, failure or "can be told", mend)


def socket_filter() -> Finding:
    """The kind of program that tells known TCP connections, for chains that make them longer."""
    failure = _load(bpf.PROG_TYPE_SOCKET_FILTER)
    mend = "boot a kernel with CONFIG_BPF_SYSCALL (chains that lengthen TCP segments need it)"
    return found("bpf", "known connections", not failure, failure or "loads", _mend(mend))


def socket_destroy() -> Finding:
    """Whether customized TCP connections can be closed when nobody is there any more to translate them."""
    failure = "not tried: needs root" if os.geteuid() != 0 else socket_end.problem()
    mend = "boot a kernel with CONFIG_INET_DIAG_DESTROY (chains that lengthen TCP segments want it)"
    return found("bpf", "closing connections", not failure, failure or "works", _mend(mend))


def _load(kind: int, attach: int = 0) -> str:
    """What the kernel says to the smallest program of a kind; empty when it took it."""
    try:
        os.close(bpf.load_program(kind, ALWAYS_ONE, "layer45_probe", attach))
    except OSError as error:
        return error.strerror or str(error)
    return ""
