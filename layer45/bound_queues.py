"""The NFQUEUE queues and NFLOG groups of this network namespace that somebody reads, as the kernel says.

Nothing is listed while the kernel's module is not loaded yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

QUEUES = Path("/proc/net/netfilter/nfnetlink_queue")
GROUPS = Path("/proc/net/netfilter/nfnetlink_log")


@dataclass(frozen=True)
class Bound:
    """port: netlink's, of who reads it. waiting: packets, or copies, that it has not been given yet.

    dropped: packets, so far; of copies the kernel does not list them.
    """

    port: str
    waiting: int = 0
    dropped: int = 0


NOTHING = Bound("")


def queues() -> dict[int, Bound]:
    """By number."""
    return {
        int(number): Bound(port, int(waiting), int(full) + int(failed))
        for number, port, waiting, _mode, _range, full, failed, *_ in _rows(QUEUES)
    }


def groups() -> dict[int, Bound]:
    """By number."""
    return {int(number): Bound(port, int(waiting)) for number, port, waiting, *_ in _rows(GROUPS)}


def _rows(listing: Path) -> Iterator[list[str]]:
    try:
        text = listing.read_text()
    except OSError:
        return
    yield from (line.split() for line in text.splitlines())
