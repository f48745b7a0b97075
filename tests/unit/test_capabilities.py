"""The capabilities of a thread, each in one of its own that ends with the test; and what status tells."""

import ctypes
import errno
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from layer45 import privileges
from layer45.privileges_view import described
from layer45.rules import capabilities
from layer45.rules.capabilities import bound, keep, named, permitted, raised

pytestmark = pytest.mark.root

PR_SET_NO_NEW_PRIVS = 38
SOME = ("net_admin", "net_raw", "sys_ptrace")


def in_a_thread(work: Callable[[], object], name: str = "probe") -> object:
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(work()), name=name)
    thread.start()
    thread.join(30)
    return done[0]


def sets() -> dict[str, int]:
    """As the kernel tells them of this thread."""
    text = Path("/proc/thread-self/status").read_text()
    return {name: int(bits, 16) for name, bits in re.findall(r"^Cap(\w+):\s+(\w+)", text, re.MULTILINE)}


def bits(*names: str) -> int:
    """By the numbers of linux/capability.h."""
    numbers = {"net_admin": 12, "net_raw": 13, "sys_ptrace": 19, "bpf": 39, "perfmon": 38}
    return sum(1 << numbers[name] for name in names)


def test_what_is_kept_is_all_there_is() -> None:
    def work() -> dict[str, int]:
        keep(SOME, ("net_admin",))
        return sets()

    found = in_a_thread(work)
    assert isinstance(found, dict)
    assert found["Prm"] == bits(*SOME) and found["Eff"] == bits("net_admin")
    assert found["Inh"] == found["Amb"] == 0


def test_what_a_thread_has_not_it_does_not_get() -> None:
    def work() -> frozenset[str]:
        keep(("net_raw",))
        keep(SOME)
        return permitted()

    assert in_a_thread(work) == {"net_raw"}


def test_raised_while_it_lasts_also_when_it_fails_and_within_itself() -> None:
    def work() -> list[int]:
        keep(SOME, ("net_admin",))
        seen = []
        with raised("sys_ptrace", "sys_boot"):
            with raised("sys_ptrace"):
                seen.append(sets()["Eff"])
            seen.append(sets()["Eff"])
        seen.append(sets()["Eff"])
        with pytest.raises(ZeroDivisionError), raised("net_raw"):
            seen.append(1 // 0)
        return [*seen, sets()["Eff"]]

    low, high = bits("net_admin"), bits("net_admin", "sys_ptrace")
    assert in_a_thread(work) == [high, high, low, low]


@pytest.mark.parametrize("no_new", [True, False])
def test_what_programs_get(no_new: bool) -> None:
    """All that is bounding; with "no new privileges", of that only what is permitted."""
    expected = bits("net_admin") if no_new else bits("net_admin") | 1 << 22

    def work() -> str:
        bound(("net_admin", "sys_boot"))
        keep(SOME, ("net_raw",))
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, int(no_new), 0, 0, 0)
        command = ["grep", "CapEff", "/proc/self/status"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert in_a_thread(work) == f"CapEff:\t{expected:016x}\n"


def test_who_may_not_change_the_bounding_set_is_told() -> None:
    def work() -> bool:
        keep(SOME)
        return bound(())

    assert in_a_thread(work) is False


def test_names_are_those_of_the_header() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no kernel headers here")
    known = re.findall(r"^#define CAP_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    assert len(known) >= 40
    for name, number in known:
        assert capabilities.NAMES.index(name.lower()) == int(number)
    assert named(1 << 12 | 1 << 63) == {"net_admin", "63"}


def test_a_worker_is_told_with_what_it_has() -> None:
    def work() -> list[dict[str, object]]:
        privileges.keep_least("worker")
        return [each for each in described()["threads"] if each["thread"] == "worker"]

    assert in_a_thread(work, "layer45-4500") == [
        {
            "thread": "worker",
            "count": 1,
            "effective": ("net_admin",),
            "raisable": (),
            "bounding": ("bpf", "net_admin", "net_raw"),
            "no_new_privs": True,
            "seccomp": "filter",
        }
    ]
    assert privileges.problems() == []


def test_where_the_kernel_refuses_maps_to_others_a_worker_keeps_what_opens_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Up to Linux 5.18, with kernel.unprivileged_bpf_disabled; such a kernel is not to be had here."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "")

    def work() -> tuple[int, int]:
        privileges.keep_least("worker")
        return sets()["Prm"], sets()["Eff"]

    monkeypatch.setattr(privileges.bpf, "lookup", refused)
    assert in_a_thread(work) == (bits("net_admin", "bpf"),) * 2


def test_a_machine_without_a_filter_goes_on_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "mips64")
    monkeypatch.setattr(privileges, "_problems", set())
    in_a_thread(lambda: privileges.keep_least("worker"))
    assert privileges.problems() == ["no system call filter is known for mips64"]
