"""Class and queue numbers that stay what they were over a reload."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from layer45.config import LAST_QUEUE


@dataclass(frozen=True, order=True)
class QueueKind:
    """What chains in one queue have in common.

    renumbers: see chain_properties.renumbers. copies: see packet_path.py.
    """

    copy_bytes: int
    gso: bool
    on_failure: str
    renumbers: bool = False
    copies: bool = False


@dataclass(frozen=True)
class QueuePlan:
    """Queues first .. first + workers - 1, one a worker; there is one group for each kind in use.

    copy_bytes: of a packet, that the kernel copies to us. on_failure: "open" or "closed". renumbers: it has
    customized TCP connections, of which no packet may pass as it is. copies: it gets copies of packets
    that go on without it; its numbers are those of NFLOG groups, and gso is true: they are of super-packets.
    """

    first: int
    workers: int
    copy_bytes: int
    gso: bool
    on_failure: str
    renumbers: bool = False
    copies: bool = False

    @property
    def kind(self) -> QueueKind:
        """What it stands for."""
        return QueueKind(self.copy_bytes, self.gso, self.on_failure, self.renumbers, self.copies)

    @property
    def fail_open(self) -> bool:
        """Whether packets that find the queue full pass, uncustomized."""
        return self.on_failure == "open" and not self.renumbers

    @property
    def kind_name(self) -> str:
        """What one of them is called, where something is wrong with it."""
        return "group" if self.copies else "queue"

    @property
    def numbers(self) -> range:
        """The queues' numbers."""
        return range(self.first, self.first + self.workers)

    @property
    def ends(self) -> list[int]:
        """The first and the last of them, as everything that is shown has it."""
        return [self.numbers[0], self.numbers[-1]]


def number_classes(names: Sequence[str], known: Mapping[str, int], capacity: int) -> dict[str, int]:
    """name -> class, 1..capacity, for all of names, then for gone ones whose number nobody has taken.

    known: the result of the last time. A gone policy's number is given away only when no fresh one is left,
    the longest gone first: old connections may still carry it. ValueError: more names than numbers.
    """
    if len(names) > capacity:
        raise ValueError(f"{len(names)} policies need {len(names).bit_length()} class bits")
    kept = {name: known[name] for name in names if known.get(name, capacity + 1) <= capacity}
    gone = {name: number for name, number in known.items() if name not in kept and number <= capacity}
    fresh = iter(sorted(set(range(1, capacity + 1)) - set(known.values())))
    recycled = iter(list(gone.items()))
    numbers = {}
    for name in names:
        numbers[name] = kept.get(name) or _next_number(fresh, recycled, gone)
    return {**numbers, **gone}


def _next_number(fresh: Iterable[int], recycled: Iterable[tuple[str, int]], gone: dict[str, int]) -> int:
    for number in fresh:
        return number
    for name, number in recycled:
        del gone[name]
        return number
    raise AssertionError("the number of names was checked")


def number_queues(
    kinds: Iterable[QueueKind],
    first: int,
    workers: int,
    previous: Sequence[QueuePlan],
    same: bool,
    others: Iterable[int] = (),
) -> dict[QueueKind, QueuePlan]:
    """A queue group for each kind.

    previous: the last time's, whose numbers stay in use until the engine retires them. same: first and
    workers are as they were, so groups keep their numbers. others: numbers that are not free either.
    ValueError: out of queue numbers.
    """
    old = {group.kind: group for group in previous} if same else {}
    taken = {*others, *(number for group in previous for number in group.numbers)}
    groups = {}
    for kind in sorted(set(kinds)):
        groups[kind] = old.get(kind) or _new_group(kind, first, workers, taken)
        taken.update(groups[kind].numbers)
    return groups


def _new_group(kind: QueueKind, first: int, workers: int, taken: set[int]) -> QueuePlan:
    start = first
    while taken.intersection(range(start, start + workers)):
        start += 1
    if start + workers - 1 > LAST_QUEUE:
        raise ValueError(f"the queues would end at {start + workers - 1}; the last there is is {LAST_QUEUE}")
    return QueuePlan(start, workers, **asdict(kind))
