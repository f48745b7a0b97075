"""Policies and modules -> whole chains: includes in front, parameters validated, properties summed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from layer45.chain_properties import (
    MAX_GROWTH_BYTES,
    ChainProperties,
    InstancePlan,
    Link,
    add_up,
    chain_faults,
    instance_faults,
)
from layer45.modulefolder import ModuleIndex
from layer45.policy import ChainEntry, Policy
from layer45.problems import Problems
from layer45.selector import PROTOCOLS
from layer45.suggest import did_you_mean


@dataclass(frozen=True)
class Composed:
    """A policy with its whole chain."""

    policy: Policy
    links: tuple[Link, ...]
    protocols: tuple[str, ...]
    properties: ChainProperties

    @property
    def instances(self) -> tuple[InstancePlan, ...]:
        """In egress order."""
        return tuple(link.instance for link in self.links)


def whole_chain(policy: Policy, policies: Mapping[str, Policy]) -> tuple[ChainEntry, ...]:
    """The entries of its whole chain, those of included policies first."""
    return tuple(entry for part in _all_parts(policy, policies) for entry in policies[part].chain)


def whole_version(policy: Policy, policies: Mapping[str, Policy]) -> str:
    """Its version and those of the policies that it includes."""
    versions = (policies[part].version for part in _all_parts(policy, policies))
    return "+".join(version for version in versions if version)


def _all_parts(policy: Policy, policies: Mapping[str, Policy]) -> list[str]:
    seen = {policy.name}
    return [*(part for name in policy.include for part in _parts(name, policies, seen)), policy.name]


def compose(policies: Mapping[str, Policy], index: ModuleIndex, problems: Problems) -> list[Composed]:
    """All policies, standby ones too. What is wrong is collected, and such a policy's result is of no use."""
    own = {name: _own_links(policy, index, problems) for name, policy in policies.items()}
    return [_compose(policy, policies, own, problems) for policy in policies.values()]


def _own_links(policy: Policy, index: ModuleIndex, problems: Problems) -> list[Link | None]:
    """None stands for an entry that has problems."""
    return [_link(entry, index, problems) for entry in policy.chain]


def _link(entry: ChainEntry, index: ModuleIndex, problems: Problems) -> Link | None:
    module = index.modules.get(entry.module)
    if module is None:
        _report_missing_module(entry, index, problems)
        return None
    found = Problems()
    lacking = entry.directions - set(module.manifest.directions)
    if len(entry.directions) == 1 and lacking:
        only = " and ".join(module.manifest.directions)
        found.add(entry.place.child("direction"), f"module {module.name} works on {only} only")
    values = module.manifest.read_values(entry.parameters, entry.place, found)
    problems.extend(found)
    directions = entry.directions & set(module.manifest.directions)
    return None if found else Link(InstancePlan(module, values, directions, entry.place), entry.place)


def _report_missing_module(entry: ChainEntry, index: ModuleIndex, problems: Problems) -> None:
    if entry.module in index.broken:
        problems.extend(index.broken[entry.module])
    else:
        names = sorted({*index.modules, *index.broken})
        hint = did_you_mean(entry.module, names) or f"; there are {', '.join(names) or 'none'}"
        problems.add(entry.place.child("module"), f'no module "{entry.module}"{hint}')


def _compose(
    policy: Policy,
    policies: Mapping[str, Policy],
    own: Mapping[str, Sequence[Link | None]],
    problems: Problems,
) -> Composed:
    all_links = [*_included_links(policy, policies, own), *own[policy.name]]
    links = [link for link in all_links if link]
    protocols = _protocols(policy, links)
    properties = add_up([link.instance for link in links], protocols)
    composed = Composed(policy, tuple(links), protocols, properties)
    if not _is_fragment(policy, policies) and not problems.concern(policy.place.child("match")):
        check_chain(composed, problems, complete=len(links) == len(all_links))
    return composed


def check_chain(composed: Composed, problems: Problems, complete: bool = True) -> None:
    """Whether it can run. complete: every link of the chain is there."""
    for place, text in chain_faults(composed.links, composed.protocols, complete=complete):
        problems.add(place, text)
    _report_growth(composed.policy, composed.properties, problems)


def _is_fragment(policy: Policy, policies: Mapping[str, Policy]) -> bool:
    """Whether its chain is only ever a part of others'."""
    return policy.state == "standby" and any(policy.name in other.include for other in policies.values())


def _included_links(
    policy: Policy, policies: Mapping[str, Policy], own: Mapping[str, Sequence[Link | None]]
) -> Iterable[Link | None]:
    """Chains of the included policies and of those they include, each once; told of at `include`."""
    seen = {policy.name}
    for index, name in enumerate(policy.include):
        place = policy.place.child("include", index)
        for part in _parts(name, policies, seen):
            yield from (link and Link(link.instance, place, included=True) for link in own[part])


def _parts(name: str, policies: Mapping[str, Policy], seen: set[str]) -> list[str]:
    """The policies whose chains `name` stands for, those it includes first."""
    if name in seen or name not in policies:
        return []
    seen.add(name)
    inner = [part for each in policies[name].include for part in _parts(each, policies, seen)]
    return [*inner, name]


def _protocols(policy: Policy, links: Sequence[Link]) -> tuple[str, ...]:
    """What the policy diverts. Without a match key: whatever its chain can carry."""
    if policy.match is not None:
        wanted = policy.match.protocol or PROTOCOLS
        return tuple(each for each in PROTOCOLS if each in wanted)
    able = (each for each in PROTOCOLS if not any(instance_faults(link, (each,)) for link in links))
    return tuple(able) or PROTOCOLS


def _report_growth(policy: Policy, properties: ChainProperties, problems: Problems) -> None:
    if properties.growth > MAX_GROWTH_BYTES:
        text = f"makes packets up to {properties.growth} bytes longer; expected at most {MAX_GROWTH_BYTES}"
        problems.add(policy.place.child("chain"), text)
