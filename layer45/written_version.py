"""A version of a policy as plain values, for another daemon to make a chain of it again."""

from collections.abc import Iterable, Sequence
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

import msgspec

from layer45.composition import compose
from layer45.errors import Layer45Error
from layer45.modulefolder import ModuleIndex
from layer45.policy import ChainEntry, Policy
from layer45.problems import Place, Problems
from layer45.rules.diversion import PortRange, Selector
from layer45.versions import Version, label

NETWORKS = ("local", "remote")


class WrittenSelector(msgspec.Struct, frozen=True):
    """A Selector, its networks as text."""

    protocol: tuple[str, ...]
    local: tuple[str, ...]
    remote: tuple[str, ...]
    local_port: tuple[PortRange, ...]
    remote_port: tuple[PortRange, ...]
    user: tuple[int, ...]
    group: tuple[int, ...]
    cgroup: tuple[str, ...]
    program: tuple[str, ...]


class WrittenEntry(msgspec.Struct, frozen=True):
    """A ChainEntry."""

    module: str
    directions: tuple[Literal["egress", "ingress"], ...]
    parameters: dict[str, Any]


class WrittenVersion(msgspec.Struct, frozen=True):
    """A Version. modules: their versions, by name: with others, the chain would be another one."""

    name: str
    since: float
    modules: dict[str, str]
    policy: str
    file: str
    match: WrittenSelector | None
    unless: WrittenSelector | None
    chain: tuple[WrittenEntry, ...]
    priority: int
    on_failure: Literal["open", "closed"]
    mtu: Literal["fragment", "signal"]
    version: str
    path: Literal["auto", "queue"] = "auto"

    @property
    def label(self) -> str:
        """What people know it by."""
        return label(self.version, self.modules)


def write_version(version: Version) -> WrittenVersion:
    """The plain values of a version."""
    policy = version.composed.policy
    return WrittenVersion(
        name=version.name,
        since=version.since,
        modules=version.modules,
        policy=policy.name,
        file=str(policy.file),
        match=_write_selector(policy.match),
        unless=_write_selector(policy.unless),
        chain=tuple(map(_write_entry, version.entries)),
        priority=policy.priority,
        on_failure=policy.on_failure,
        mtu=policy.mtu,
        version=policy.version,
        path=policy.path,
    )


def _write_selector(selector: Selector | None) -> WrittenSelector | None:
    if selector is None:
        return None
    values = {each.name: getattr(selector, each.name) for each in fields(Selector)}
    return WrittenSelector(**values | {key: tuple(map(str, values[key])) for key in NETWORKS})


def _write_entry(entry: ChainEntry) -> WrittenEntry:
    return WrittenEntry(entry.module, tuple(sorted(entry.directions)), dict(entry.parameters))  # type: ignore[arg-type]


def read_versions(written: Iterable[WrittenVersion], index: ModuleIndex) -> tuple[list[Version], list[str]]:
    """Those that can be made again of the modules that there are; and why others cannot, a line each."""
    found, remarks = [], []
    for each in written:
        try:
            found.append(_read_version(each, index))
        except Layer45Error as error:
            remarks.append(f'policy "{each.policy}": its version {each.label} cannot go on: {error}')
    return found, remarks


def _read_version(written: WrittenVersion, index: ModuleIndex) -> Version:
    for name, version in written.modules.items():
        module = index.modules.get(name)
        if module is None or module.manifest.version != version:
            now = f"is {module.manifest.version} now" if module else "is gone"
            raise Layer45Error(f"module {name} {version} {now}")
    place, problems = Place(Path(written.file)).child("policy", written.policy), Problems()
    chain = [_read_entry(each, place.child("chain", at)) for at, each in enumerate(written.chain)]
    policy = _policy(written, place, chain)
    (composed,) = compose({policy.name: policy}, index, problems)
    if problems:
        raise Layer45Error(problems.sorted_lines()[0])
    return Version(written.name, composed, policy.chain, written.since)


def _policy(written: WrittenVersion, place: Place, chain: Sequence[ChainEntry]) -> Policy:
    return Policy(
        name=written.policy,
        place=place,
        priority=written.priority,
        match=_read_selector(written.match),
        unless=_read_selector(written.unless),
        chain=tuple(chain),
        on_failure=written.on_failure,
        mtu=written.mtu,
        version=written.version,
        path=written.path,
    )


def _read_selector(written: WrittenSelector | None) -> Selector | None:
    if written is None:
        return None
    values = msgspec.structs.asdict(written)
    try:
        networks = {key: tuple(map(ip_network, values[key])) for key in NETWORKS}
    except ValueError as error:
        raise Layer45Error(str(error)) from None
    return Selector(**values | networks)


def _read_entry(written: WrittenEntry, place: Place) -> ChainEntry:
    return ChainEntry(written.module, frozenset(written.directions), written.parameters, place)
