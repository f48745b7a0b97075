"""What ran before a plan, and what of it the plan takes over: numbers, and versions that flows still have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from layer45.inheritance import Inheritance
from layer45.modulefolder import ModuleIndex
from layer45.numbering import QueuePlan
from layer45.versions import Version
from layer45.written_version import read_versions


@dataclass(frozen=True)
class Before:
    """classes: numbers given so far. queues: ours until now; taken: numbers of others that are in use.

    numbering: first queue and workers, for which the queues were numbered: groups keep them where these are
    equal. remarks: what could not be taken over, a line each. executed: see Plan; None: it is not known.
    """

    classes: Mapping[str, int] = field(default_factory=dict)
    queues: Sequence[QueuePlan] = ()
    taken: Sequence[int] = ()
    versions: Sequence[Version] = ()
    numbering: tuple[int, int] | None = None
    remarks: tuple[str, ...] = ()
    executed: frozenset[str] | None = None


def inherited(left: Inheritance, index: ModuleIndex) -> Before:
    """What another daemon left."""
    versions, remarks = read_versions(left.versions, index)
    return Before(left.classes, taken=left.taken, versions=versions, remarks=tuple(remarks))
