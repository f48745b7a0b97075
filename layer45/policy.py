"""policies/*.toml -> Policy: whose sockets, which chain, and what happens on failure."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from layer45.problems import Place, Problems, shown
from layer45.rules.diversion import Selector
from layer45.selector import read_match
from layer45.suggest import did_you_mean
from layer45.table import read_table, report_unknown
from layer45.toml_file import Read, read_toml
from layer45.trusted_files import Distrusted, open_directory

POLICY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)  # also a cgroup's: no "cpu.max"
POLICY_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}", re.ASCII)
RESERVED = ("module", "direction")  # keys of a chain entry that are no parameters
BOTH = frozenset(("egress", "ingress"))

Priority = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]


@dataclass(frozen=True)
class ChainEntry:
    """An instance as written: a module's name, and parameters not yet validated."""

    module: str
    directions: frozenset[str]  # subset of {"egress", "ingress"}
    parameters: Mapping[str, object]
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True)
class Policy:
    """A validated policy; what its chain needs of modules is the loader's to check.

    match None: the policy has no match key; only programs started by `layer45 exec` have it.
    match Selector() (`match = {}`): any socket.
    unless: sockets that match excludes.
    apply_now: open sockets of programs that match get it when the daemon starts or reloads.
    version: where it is another one than before, flows that are open keep to their end what they have.
    path: "queue": its packets go through the queue, even where a shorter way does the same (packet_path.py).
    """

    name: str
    place: Place = field(compare=False, repr=False)
    summary: str = ""
    priority: int = 0  # higher first
    match: Selector | None = None
    unless: Selector | None = None
    include: tuple[str, ...] = ()
    chain: tuple[ChainEntry, ...] = ()
    on_failure: Literal["open", "closed"] = "open"
    mtu: Literal["fragment", "signal"] = "fragment"
    state: Literal["active", "standby", "deprecated"] = "active"
    apply_now: bool = False
    version: str = ""
    path: Literal["auto", "queue"] = "auto"

    @property
    def file(self) -> Path:
        """Where it is written."""
        return self.place.file

    @property
    def line(self) -> int:
        """Where it begins in its file."""
        return self.place.line


@dataclass(frozen=True)
class _PlainKeys:
    """The keys of a policy. match and chain have readers of their own."""

    summary: str = ""
    priority: Priority = 0
    match: Any = None
    include: str | tuple[str, ...] = ()
    chain: Any = ()
    on_failure: Literal["open", "closed"] = "open"
    mtu: Literal["fragment", "signal"] = "fragment"
    state: Literal["active", "standby", "deprecated"] = "active"
    apply_now: bool = False
    version: str = ""
    path: Literal["auto", "queue"] = "auto"


def load_policies(directory: Path) -> dict[str, Policy]:
    """All policies of `directory`/policies. Raises ConfigError."""
    problems = Problems()
    policies = read_policies(directory, problems)
    problems.raise_any()
    return policies


def read_policies(directory: Path, problems: Problems) -> dict[str, Policy]:
    """As load_policies, but problems are collected and wrong keys left out."""
    policies: dict[str, Policy] = {}
    for read in _read_files(directory / "policies", problems):
        for policy in _read_tables(*read, problems):
            first = policies.setdefault(policy.name, policy)
            if first is not policy:
                problems.add(policy.place, f"this name is taken by the policy at {first.place}")
    _check_includes(policies, problems)
    return policies


def _read_files(directory: Path, problems: Problems) -> list[Read]:
    try:
        with open_directory(directory) as opened:
            files = [directory / name for name in opened.names() if Path(name).suffix == ".toml"]
            return [read for file in files if (read := read_toml(opened, file, problems))]
    except Distrusted as error:
        problems.add_file(error.path, error.reason)
        return []
    except FileNotFoundError:
        return []  # the loader warns when there is no policy
    except OSError as error:
        if os.path.isdir(directory.parent):  # noqa: PTH112 (never raises); else config.py has told of it
            problems.add_file(directory, f"cannot be read: {error.strerror}")
        return []


def _read_tables(top: Mapping[str, object], place: Place, problems: Problems) -> list[Policy]:
    report_unknown(top, ("policy",), place, problems)
    tables = top.get("policy", {})
    if not isinstance(tables, dict):
        problems.add(place.child("policy"), f"expected tables [policy.NAME], got {shown(tables)}")
        return []
    return [
        _read_policy(name, table, place.child("policy", name), problems) for name, table in tables.items()
    ]


def _read_policy(name: str, table: object, place: Place, problems: Problems) -> Policy:
    if not POLICY_NAME.fullmatch(name):
        problems.add(place, "expected a name of 1..63 letters, digits, _ and -, a letter or digit first")
    values = read_table(table, _PlainKeys, place, problems)
    if not POLICY_VERSION.fullmatch(values.get("version", "1")):
        expected = "expected a version of 1..32 letters, digits, and . _ + -, a letter or digit first"
        problems.add(place.child("version"), f"{expected}, got {shown(values.pop('version'))}")
    if isinstance(values.get("include"), str):
        values["include"] = (values["include"],)
    if "match" in values:
        match, unless = read_match(values["match"], place.child("match"), problems)
        values.update(match=match, unless=unless)
    if "chain" in values:
        values["chain"] = _read_chain(values["chain"], place.child("chain"), problems)
    return Policy(name=name, place=place, **values)


def _read_chain(value: object, place: Place, problems: Problems) -> tuple[ChainEntry, ...]:
    if isinstance(value, dict):
        entries = [_read_entry(value, place, problems)]
    elif isinstance(value, list):
        entries = [_read_entry(each, place.child(i), problems) for i, each in enumerate(value)]
    else:
        problems.add(place, f"expected a list of {{ module = … }}, got {shown(value)}")
        entries = []
    return tuple(entry for entry in entries if entry)


def _read_entry(value: object, place: Place, problems: Problems) -> ChainEntry | None:
    if not isinstance(value, dict):
        problems.add(place, f"expected a table {{ module = … }}, got {shown(value)}")
        return None
    name = value.get("module")
    if not isinstance(name, str):
        got = f", got {shown(name)}" if "module" in value else ""
        problems.add(place.child("module"), f"expected a module's name{got}")
        return None
    parameters = {key: each for key, each in value.items() if key not in RESERVED}
    directions = _read_direction(value.get("direction", "both"), place.child("direction"), problems)
    return ChainEntry(name, directions, parameters, place)


def _read_direction(value: object, place: Place, problems: Problems) -> frozenset[str]:
    if value == "both":
        return BOTH
    if isinstance(value, str) and value in BOTH:
        return frozenset((value,))
    hint = did_you_mean(value, ("both", *BOTH)) if isinstance(value, str) else ""
    problems.add(place, f'expected one of "both", "egress", "ingress", got {shown(value)}{hint}')
    return BOTH


def _check_includes(policies: Mapping[str, Policy], problems: Problems) -> None:
    for policy in policies.values():
        for index, name in enumerate(policy.include):
            if name not in policies:
                place = policy.place.child("include", index)
                problems.add(place, f'no policy "{name}"{did_you_mean(name, policies)}')
    for cycle in _include_cycles(policies):
        place = policies[cycle[0]].place.child("include")
        problems.add(place, f"includes go round in a circle: {' -> '.join((*cycle, cycle[0]))}")


def _include_cycles(policies: Mapping[str, Policy]) -> set[tuple[str, ...]]:
    """Each circle once, beginning with its first name in the alphabet."""
    found = set()
    for name in policies:
        cycle = _way_back(name, policies)
        if cycle:
            start = cycle.index(min(cycle))
            found.add(cycle[start:] + cycle[:start])
    return found


def _way_back(start: str, policies: Mapping[str, Policy]) -> tuple[str, ...]:
    """The shortest way along includes from a policy to itself; empty if there is none."""
    ways: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    for way in ways:
        for name in _included(way[-1], policies):
            if name == start:
                return way
            if name not in seen:
                seen.add(name)
                ways.append((*way, name))
    return ()


def _included(name: str, policies: Mapping[str, Policy]) -> Iterable[str]:
    return (each for each in policies[name].include if each in policies)
