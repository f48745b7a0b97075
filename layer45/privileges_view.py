"""What the daemon's threads may really do, as the kernel tells it: /proc/PID/task/*/status, proc(5)."""

import re
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from layer45 import privileges
from layer45.rules import capabilities

TASKS = Path("/proc/self/task")
FIELD = re.compile(r"^(Cap\w+|NoNewPrivs|Seccomp):\s+(\w+)", re.MULTILINE)
SECCOMP = {"0": "off", "1": "strict", "2": "filter"}
KINDS = {"MainThread": "main", "layer45-control": "control", "layer45-launcher": "launcher"}
WORKER = re.compile(r"layer45-\d+")


@dataclass(frozen=True)
class Sets:
    """Of one thread. Names as in capabilities(7), without CAP_. raisable: permitted, and not in use now."""

    effective: tuple[str, ...]
    raisable: tuple[str, ...]
    bounding: tuple[str, ...]
    no_new_privs: bool
    seccomp: str


def described() -> dict[str, Any]:
    """threads: what threads of each kind may do, and how many of the kind may do just that.

    problems: why some are less confined than they could be.
    """
    counted: dict[tuple[str, Sets], int] = {}
    names = {each.native_id: each.name for each in threading.enumerate()}
    for task in sorted(TASKS.iterdir(), key=lambda path: int(path.name)):
        try:
            status = dict(FIELD.findall((task / "status").read_text()))
        except OSError:  # it has ended
            continue
        key = _kind(names.get(int(task.name), "")), _sets(status)
        counted[key] = counted.get(key, 0) + 1
    threads = [{"thread": kind, "count": count, **asdict(sets)} for (kind, sets), count in counted.items()]
    return {"threads": threads, "problems": privileges.problems()}


def _kind(name: str) -> str:
    if WORKER.fullmatch(name):
        return "worker"
    return next((kind for start, kind in KINDS.items() if name.startswith(start)), "other")


def _sets(status: Mapping[str, str]) -> Sets:
    effective, permitted, bounding = (
        capabilities.named(int(status[key], 16)) for key in ("CapEff", "CapPrm", "CapBnd")
    )
    return Sets(
        tuple(sorted(effective)), tuple(sorted(permitted - effective)), tuple(sorted(bounding)),
        status.get("NoNewPrivs") == "1", SECCOMP.get(status.get("Seccomp", "0"), "off"),
    )  # fmt: skip
