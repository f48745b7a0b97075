"""Processors for the engine's workers: the setting `worker_cpus`, and what the kernel lets this process use.

A worker keeps to one processor. A new one gets that of the list which has the fewest workers, the first of
those: so they go round the list in its order, over all groups of queues.
"""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from layer45.errors import Layer45Error
from layer45.problems import shown

MOST = 8192  # what Linux can be built for, on any machine
EXPECTED = f'expected a list of processors, each once and below {MOST}, such as "0-3,6"'
_PART = re.compile(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", re.ASCII)


def parse(text: str) -> tuple[int, ...]:
    """The processors of a list as cpuset(7) and `taskset -c` have it, in the order of the text; "": none.

    Raises ValueError: what was expected and what was found.
    """
    found = [number for part in text.split(",") for number in _span(part)] if text else []
    if (text and not found) or len(set(found)) < len(found) or max(found, default=0) >= MOST:
        raise ValueError(f"{EXPECTED}, got {shown(text)}")
    return tuple(found)


def _span(part: str) -> Iterable[int]:
    """Of one part; what is wrong is a number that no processor has."""
    match = _PART.fullmatch(part)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    return range(first, last + 1) if first <= last else [MOST]


def as_text(processors: Collection[int]) -> str:
    """The list of a set, in the kernel's form: "0-3,6"."""
    parts: list[list[int]] = []
    for number in sorted(processors):
        if parts and parts[-1][-1] == number - 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def usable() -> frozenset[int]:
    """What a thread of this process may ask for: online, and in its cgroup's cpuset.

    More than it runs on now, where CPUAffinity= or `isolcpus` keeps it from some. Tried in a thread that ends
    with it. Raises OSError where threads may not choose.
    """
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(_widest).result()


def _widest() -> frozenset[int]:
    os.sched_setaffinity(0, range(MOST))
    return frozenset(os.sched_getaffinity(0))


def check_usable(listed: Collection[int]) -> None:
    """Raises Layer45Error if workers cannot be placed on each of these."""
    if not listed:
        return
    try:
        there = usable()
    except OSError as error:
        reason = f"the daemon's threads may not choose their processor: {error.strerror}"
        raise Layer45Error(f"{reason}; allow it sched_setaffinity (SystemCallFilter= in its unit)") from error
    missing = set(listed) - there
    if missing:
        raise Layer45Error(
            f"expected processors that are online and that the daemon may use, {as_text(there)}; "
            f"got {as_text(missing)} too"
        )


def keep_to(processor: int | None) -> None:
    """The calling thread, no other, runs there from now on. None: anywhere.

    Where a processor went since `check_usable`, it goes on as it is; the kernel lets those that had it, too.
    """
    if processor is not None:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {processor})


def of_thread(native_id: int | None) -> str:
    """Where a thread may run, as the kernel has it now; empty when it has ended or not begun."""
    try:
        return as_text(os.sched_getaffinity(native_id)) if native_id else ""
    except OSError:
        return ""


def next_of(listed: Sequence[int], taken: Iterable[int | None]) -> int | None:
    """Where a new worker goes. listed: by `parse`; empty: None, wherever the scheduler likes.

    taken: where each of the others is.
    """
    workers = Counter(taken)
    return min(listed, key=lambda number: workers[number], default=None)
