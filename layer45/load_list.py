"""`load` in layer45.toml -> policies: modules that have their sockets by [match] in their own module.toml.

A socket gets every loaded module whose match it fits, in the order of `load`. So modules with the same match
are one chain and one policy, which has the name of the first. A match that lies inside another one makes a
chain that has the other's modules, too, and comes before it. Matches that only overlap are refused: what a
socket of both gets, a policy must then say. Parameters have their defaults.

Any policy that is written down comes before all of these.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from layer45.config import Settings
from layer45.manifest import Manifest
from layer45.modulefolder import ModuleIndex
from layer45.overlap import covers, overlap
from layer45.policy import BOTH, ChainEntry, Policy
from layer45.problems import Place, Problems
from layer45.rules.diversion import Selector
from layer45.suggest import did_you_mean

PRIORITY = -(1 << 31)  # the lowest there is; one more for each match that a policy's lies inside of


@dataclass(frozen=True)
class _Loaded:
    """A module that `load` names, at place."""

    manifest: Manifest
    number: int
    place: Place

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def match(self) -> Selector:
        assert self.manifest.match is not None
        return self.manifest.match

    def within(self, other: "_Loaded") -> bool:
        """Whether every socket of this one is surely one of the other's."""
        excluded = other.manifest.unless
        if excluded and overlap(excluded, self.match, None, self.manifest.unless):
            return False
        return covers(other.match, self.match)

    def meets(self, other: "_Loaded") -> bool:
        """Whether some socket may be one of both."""
        return overlap(self.match, other.match, self.manifest.unless, other.manifest.unless)


def loaded_policies(
    settings: Settings, place: Place, index: ModuleIndex, policies: Mapping[str, Policy], problems: Problems
) -> dict[str, Policy]:
    """By name. place: of layer45.toml. policies: those that are written down."""
    modules = list(_loaded(settings.load, place.child("load"), index, problems))
    if _report_meetings(modules, problems):
        return {}
    made = [_policy(first, modules) for first in modules if not _has_twin_before(first, modules)]
    _report_taken_names(made, policies, problems)
    return {each.name: each for each in made if each.name not in policies}


def _loaded(names: Sequence[str], place: Place, index: ModuleIndex, problems: Problems) -> Iterator[_Loaded]:
    for number, name in enumerate(names):
        at = place.child(number)
        if name in names[:number]:
            problems.add(at, f"module {name} is named twice; expected each once")
        elif name in index.broken:
            problems.extend(index.broken[name])
        elif name not in index.modules:
            hint = did_you_mean(name, index.modules) or "; see layer45 modules list"
            problems.add(at, f'no module "{name}"{hint}')
        else:
            manifest = index.modules[name].manifest
            fault = _fault(manifest)
            if fault:
                problems.add(at, f"module {name} {fault}; write a policy for it")
            else:
                yield _Loaded(manifest, number, at)


def _fault(manifest: Manifest) -> str:
    """Why it needs a policy; empty if it does not."""
    required = [name for name, each in manifest.parameters.items() if each.required]
    if required:
        return f"cannot do without {', '.join(required)}"
    return "" if manifest.match is not None else "has no [match] in its module.toml"


def _report_meetings(modules: Sequence[_Loaded], problems: Problems) -> bool:
    """Whether there are modules that share some of their sockets, but not all of one's."""
    before = len(problems)
    for number, later in enumerate(modules):
        for earlier in modules[:number]:
            if later.meets(earlier) and not later.within(earlier) and not earlier.within(later):
                text = f"a socket could match both module {earlier.name} and module {later.name}"
                expected = "expected matches that are equal, exclude each other or lie inside each other"
                problems.add(later.place, f"{text}; {expected}, or a policy with both in its chain")
    return len(problems) > before


def _has_twin_before(module: _Loaded, modules: Sequence[_Loaded]) -> bool:
    earlier = (each for each in modules if each.number < module.number)
    return any(each.within(module) and module.within(each) for each in earlier)


def _policy(first: _Loaded, modules: Sequence[_Loaded]) -> Policy:
    """For the sockets of a module that is the first with its match."""
    chain = [each for each in modules if first.within(each)]
    outer = [each for each in chain if not each.within(first)]
    return Policy(
        name=first.name,
        place=first.place,
        summary="; ".join(each.manifest.summary for each in chain),
        priority=PRIORITY + len(outer),
        match=first.match,
        unless=first.manifest.unless,
        chain=tuple(ChainEntry(each.name, BOTH, {}, each.place) for each in chain),
    )


def _report_taken_names(made: Iterable[Policy], policies: Mapping[str, Policy], problems: Problems) -> None:
    for each in made:
        if each.name in policies:
            text = f"its policy would have the name of the one at {policies[each.name].place}"
            problems.add(each.place, f"{text}; rename that, or let it name the module")
