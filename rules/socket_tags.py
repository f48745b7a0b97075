"""The tag of a process, as the tagger would give it to a socket that the process makes now.

The tagger's program looks the same things up in its maps (tagger_program.py); this is the same in Python, for
sockets that are open already.
"""

from collections.abc import Collection

from layer45.rules import cgroups, executables
from layer45.rules.diversion import Selector
from layer45.rules.executables import Executable
from layer45.rules.owners import Dimension, OwnerTags, is_path, owner_keys
from layer45.rules.processes import Owner

Files = dict[Executable, int]


def files(dimension: Dimension) -> Files:
    """The executables that a plan names, and that the host has → their rows."""
    found = ((executables.find(path), row) for path, row in dimension.rows.items())
    return {each: row for each, row in found if each}


class Programs:
    """Programs that policies name, and which of them a process is."""

    def __init__(self, named: Collection[str]) -> None:
        self._names = {each for each in named if not is_path(each)}
        self._files = {each: executables.find(each) for each in named if is_path(each)}

    def of(self, owner: Owner) -> frozenset[str]:
        """Names and paths."""
        paths = (path for path, file in self._files.items() if file and file == owner.file)
        return frozenset((*self._names & {owner.name}, *paths))


def tag_of(tags: OwnerTags, owner: Owner, found: Files | None = None) -> int:
    """The number of the set of owner keys that hold; 0: there is none. found: of files(), if known."""
    if not tags.dimensions:
        return 0
    user, group, cgroup, name, path = tags.dimensions
    rows = (
        user.rows.get(owner.user, 0),
        group.rows.get(owner.group, 0),
        _cgroup(cgroup, owner.cgroup),
        name.rows.get(owner.name, 0),
        (files(path) if found is None else found).get(owner.file, 0) if owner.file else 0,
    )
    return tags.numbers.get(rows, 0)


def _cgroup(dimension: Dimension, path: str) -> int:
    """The row of the deepest that the process is in."""
    return next((dimension.rows[each] for each in (path, *cgroups.above(path)) if each in dimension.rows), 0)


def without(tags: OwnerTags, tag: int, selectors: list[Selector]) -> int:
    """A tag, less the owner keys of these selectors; if no number is left for that, the tag of nothing."""
    unwanted = {tags.keys.index(keys) for keys in map(owner_keys, selectors) if keys in tags.keys}
    numbers = {places: number for number, places in tags.sets.items()}
    kept = tags.sets.get(tag, frozenset()) - unwanted
    return numbers.get(kept) or tags.of_nothing
