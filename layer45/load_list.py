"""`load` in layer45.toml -> policies: modules that have their sockets by [match] in their own module.toml.

Modules with the same match act together on a socket: they form one chain, in the order of `load`, and one
policy, which has the name of the first. Matches that differ must not meet: what a socket of both gets, a
policy must then say. Parameters have their defaults. Any policy that is written down comes before these.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from layer45.config import Settings
from layer45.manifest import Manifest
from layer45.modulefolder import ModuleIndex
from layer45.overlap import overlap
from layer45.policy import BOTH, ChainEntry, Policy
from layer45.problems import Place, Problems
from layer45.rules.diversion import Selector
from layer45.suggest import did_you_mean

PRIORITY = -(1 << 31)  # the lowest there is


@dataclass(frozen=True)
class _Loaded:
    """A module that `load` names, at place."""

    manifest: Manifest
    place: Place

    @property
    def match(self) -> Selector:
        assert self.manifest.match is not None
        return self.manifest.match

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal matches."""
        return _key(self.match), _key(self.manifest.unless)


def _key(select: Selector | None) -> object:
    return select and tuple((name, frozenset(values)) for name, values in vars(select).items())


def loaded_policies(
    settings: Settings, place: Place, index: ModuleIndex, policies: Mapping[str, Policy], problems: Problems
) -> dict[str, Policy]:
    """By name. place: of layer45.toml. policies: those that are written down."""
    groups: dict[object, list[_Loaded]] = {}
    for each in _loaded(settings.load, place.child("load"), index, problems):
        groups.setdefault(each.key, []).append(each)
    made = [_policy(group) for group in groups.values()]
    _report_taken_names(made, policies, problems)
    meeting = _report_meetings([group[0] for group in groups.values()], problems)
    return {each.name: each for each in made if each.name not in policies and each.name not in meeting}


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
                yield _Loaded(manifest, at)


def _fault(manifest: Manifest) -> str:
    """Why it needs a policy; empty if it does not."""
    required = [name for name, each in manifest.parameters.items() if each.required]
    if required:
        return f"cannot do without {', '.join(required)}"
    return "" if manifest.match is not None else "has no [match] in its module.toml"


def _policy(group: Sequence[_Loaded]) -> Policy:
    first = group[0]
    return Policy(
        name=first.manifest.name,
        place=first.place,
        summary="; ".join(each.manifest.summary for each in group),
        priority=PRIORITY,
        match=first.match,
        unless=first.manifest.unless,
        chain=tuple(ChainEntry(each.manifest.name, BOTH, {}, each.place) for each in group),
    )


def _report_taken_names(made: Iterable[Policy], policies: Mapping[str, Policy], problems: Problems) -> None:
    for each in made:
        if each.name in policies:
            text = f"its policy would have the name of the one at {policies[each.name].place}"
            problems.add(each.place, f"{text}; rename that, or let it name the module")


def _report_meetings(firsts: Sequence[_Loaded], problems: Problems) -> set[str]:
    """The names of those whose match meets that of an earlier one."""
    meeting = set()
    for number, later in enumerate(firsts):
        for earlier in firsts[:number]:
            if overlap(earlier.match, later.match, earlier.manifest.unless, later.manifest.unless):
                name, other = later.manifest.name, earlier.manifest.name
                text = f"a socket could match both module {other} and module {name}, and their matches differ"
                problems.add(later.place, f"{text}; expected equal ones, or a policy with both in its chain")
                meeting.add(name)
    return meeting
