"""module.toml -> Manifest: what a module declares of itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from layer45.counter_table import read_counters, read_ratios
from layer45.growth import Growth, parse_growth
from layer45.kernel_table import KernelPart, read_kernel_part
from layer45.parameter import Parameter
from layer45.parameter_table import read_parameters
from layer45.problems import Place, Problems, shown
from layer45.ratio import Ratio
from layer45.rules.diversion import Selector
from layer45.selector import read_match
from layer45.suggest import did_you_mean
from layer45.table import NAME, read_table, report_unknown
from layer45.toml_file import parse_toml

FILE_NAME = "module.toml"
ABI_VERSION = 1
CONTENT_HASH = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)

Direction = Literal["egress", "ingress"]


@dataclass(frozen=True)
class ModuleTable:
    """The keys of [module]."""

    name: str
    version: str
    abi: int
    kind: Literal["datagram", "segment", "stream"]
    summary: str
    inverse: Literal["self", "none"]
    transports: tuple[Literal["udp", "tcp"], ...]
    directions: tuple[Direction, ...]
    reads: Literal["headers", "payload"]
    language: Literal["cython", "python"] = "cython"
    gso: bool = False
    growth_bytes: Any = field(default_factory=lambda: {"front": 0, "back": 0})
    stream_growth: Any = None
    flow_state_bytes: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    emits: tuple[Direction, ...] = ()
    emits_bytes: Annotated[int, Meta(ge=0, le=1200)] = 0
    holds: tuple[Direction, ...] = ()
    looks_only: bool = False
    provides: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    lets_go: bool = False
    runs_after: tuple[str, ...] = ()
    runs_before: tuple[str, ...] = ()
    content_hash: str = ""  # see module_hash.py


@dataclass(frozen=True)
class Manifest(ModuleTable):
    """A validated module.toml. parameters, counters (name -> help) and ratios stand in the file's order.

    growth_front, growth_back: of a packet. stream_bytes, stream_every: so many bytes are inserted at most
    for each begun so many of a TCP stream.
    notices: counters of which an operator should hear when they are first above 0.
    kernel: what of it the kernel can do by itself; None: nothing.
    match, unless: the sockets it has when layer45.toml names it in `load`; None: it has no such opinion.
    looks_only: it says PASS of every packet and does nothing to it, so that a copy of its start will do.
    lets_go: it may be done with a flow before its end; see fastpath/leave.pxd.
    """

    growth_front: Growth = field(default_factory=Growth)
    growth_back: Growth = field(default_factory=Growth)
    stream_bytes: Growth = field(default_factory=Growth)
    stream_every: Growth = field(default_factory=Growth)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    counters: Mapping[str, str] = field(default_factory=dict)
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    kernel: KernelPart | None = None
    match: Selector | None = None
    unless: Selector | None = None

    @property
    def helps(self) -> dict[str, str]:
        """What its counters and ratios mean; no two have the same name."""
        return {**self.counters, **{name: ratio.help for name, ratio in self.ratios.items()}}

    def read_values(self, given: Mapping[str, object], place: Place, problems: Problems) -> dict[str, object]:
        """All parameters' values, in the manifest's order; defaults stand in.

        given: a chain entry's, at place. Wrong ones are problems, and left out.
        """
        _report_unknown_parameters(self, given, place, problems)
        values = {}
        for name, parameter in self.parameters.items():
            try:
                values[name] = _value(parameter, given)
            except ValueError as error:
                problems.add(place.child(name), str(error))
        return values


def _value(parameter: Parameter, given: Mapping[str, object]) -> object:
    if parameter.name in given:
        return parameter.parse(given[parameter.name])
    if parameter.required:
        raise ValueError(f"missing; expected {parameter.expected}")
    return parameter.default


def _report_unknown_parameters(
    manifest: Manifest, given: Mapping[str, object], place: Place, problems: Problems
) -> None:
    known = manifest.parameters
    for name in given.keys() - known.keys():
        hint = did_you_mean(name, (*known, "direction", "module"))
        if not hint:
            hint = f"; it has {', '.join(known)}" if known else "; it has none"
        problems.add(place.child(name), f"module {manifest.name} has no such parameter{hint}")


def load_manifest(file: Path) -> Manifest:
    """A module.toml in a folder of the module's name. Raises ConfigError."""
    problems = Problems()
    manifest = read_manifest(file, problems)
    problems.raise_any()
    assert manifest
    return manifest


def read_manifest(file: Path, problems: Problems) -> Manifest | None:
    """As load_manifest, but problems are collected; None if there are any."""
    try:
        data = file.read_bytes()
    except OSError as error:
        problems.add_file(file, f"cannot be read: {error.strerror}")
        return None
    return parse_manifest(file, data, problems)


def parse_manifest(file: Path, data: bytes, problems: Problems) -> Manifest | None:
    """As read_manifest, for what was read before. What is as it was is not looked at again."""
    kept = _kept.get(file)
    if kept and kept[0] == data:
        return kept[1]
    found = Problems()
    manifest = _parse(file, data, found)
    problems.extend(found)
    if found or manifest is None:
        return None
    if manifest.match is None:  # a match has names of users, whose numbers may change
        _kept[file] = data, manifest
    return manifest


_kept: dict[Path, tuple[bytes, Manifest]] = {}


def _parse(file: Path, data: bytes, problems: Problems) -> Manifest | None:
    read = parse_toml(file, data, problems)
    if read is None:
        return None
    top, place = read
    report_unknown(top, ("module", "param", "counter", "ratio", "match", "kernel"), place, problems)
    module = place.child("module")
    values = read_table(top.get("module", {}), ModuleTable, module, problems)
    parameters = read_parameters(top.get("param", {}), place.child("param"), problems)
    front, back = _read_growth(values, "growth_bytes", ("front", "back"), parameters, module, problems)
    inserted, every = _read_growth(values, "stream_growth", ("bytes", "every"), parameters, module, problems)
    _check(values, file, module, problems)
    counted = _read_counted(top, place, problems)
    kernel = None
    if "kernel" in top:
        names = tuple(counted["counters"])
        kernel = read_kernel_part(top["kernel"], values, parameters, names, place.child("kernel"), problems)
    match, unless = (
        read_match(top["match"], place.child("match"), problems) if "match" in top else (None, None)
    )
    if problems:
        return None
    return Manifest(
        **values,
        growth_front=front,
        growth_back=back,
        stream_bytes=inserted,
        stream_every=every,
        parameters=parameters,
        kernel=kernel,
        match=match,
        unless=unless,
        **counted,
    )


def _read_counted(top: Mapping[str, object], place: Place, problems: Problems) -> dict[str, Any]:
    counters = read_counters(top.get("counter", {}), place.child("counter"), problems)
    ratios = read_ratios(top.get("ratio", {}), counters, place.child("ratio"), problems)
    return {
        "counters": {name: counter.help for name, counter in counters.items()},
        "ratios": ratios,
        "notices": tuple(name for name, counter in counters.items() if counter.notice),
    }


def _check(values: Mapping[str, Any], file: Path, place: Place, problems: Problems) -> None:
    for key, text in _faults(values, file.parent.name):
        problems.add(place.child(key), text)


def _faults(values: Mapping[str, Any], folder: str) -> list[tuple[str, str]]:
    """What is wrong with keys that are each of the right type, as pairs of key and text."""
    name, faults = values.get("name", folder), []
    if name != folder:
        faults.append(("name", f'expected the folder\'s name "{folder}", got {shown(name)}'))
    if not NAME.fullmatch(name):
        faults.append(
            ("name", f"expected lower-case letters, digits and _, a letter first, got {shown(name)}")
        )
    abi = values.get("abi", ABI_VERSION)
    if abi != ABI_VERSION:
        faults.append(("abi", f"expected {ABI_VERSION}, which this engine has, got {abi}"))
    content_hash = values.get("content_hash", "")
    if content_hash and not CONTENT_HASH.fullmatch(content_hash):
        faults.append(
            ("content_hash", f'expected "sha256:" and 64 digits 0-9 a-f, got {shown(content_hash)}')
        )
    for key in ("transports", "directions"):
        if values.get(key) == ():
            faults.append((key, "expected at least one value"))
    if values.get("kind") == "stream" and "tcp" not in values.get("transports", ("tcp",)):
        faults.append(("transports", 'expected "tcp" among them, for a module of kind stream'))
    for key in ("runs_after", "runs_before"):
        if name in values.get(key, ()):
            faults.append((key, "names the module itself"))
    if values.get("language") == "python" and values.get("flow_state_bytes"):
        faults.append(("flow_state_bytes", "expected 0: Python code keeps its state in packet.flow.state"))
    if values.get("language") == "python" and values.get("kind") == "stream":
        faults.append(("language", 'expected "cython": a module of kind stream cannot be written in Python'))
    return faults + _direction_faults(values) + _looking_faults(values)


def _direction_faults(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    directions = values.get("directions", ("egress", "ingress"))
    return [
        (key, f"{each} is not among the module's directions")
        for key in ("emits", "holds")
        for each in values.get(key, ())
        if each not in directions
    ]


def _looking_faults(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a module that only looks declares, and could not do to a copy of a packet."""
    if not values.get("looks_only"):
        return []
    why = "looks_only = true"
    faults = [(key, f"expected none, for {why}") for key in ("emits", "holds") if values.get(key)]
    for key in ("growth_bytes", "stream_growth"):
        table = values.get(key)
        if isinstance(table, dict) and any(each != 0 for each in table.values()):
            faults.append((key, f"expected no growth, for {why}"))
    if values.get("kind") == "stream":
        faults.append(("kind", f'expected "datagram" or "segment", for {why}'))
    return faults


def _read_growth(
    values: Mapping[str, Any],
    key: str,
    sides: tuple[str, str],
    parameters: Mapping[str, Parameter],
    module: Place,
    problems: Problems,
) -> tuple[Growth, Growth]:
    table, place = values.get(key), module.child(key)
    if table is None:
        return Growth(), Growth()
    if not isinstance(table, dict):
        shape = ", ".join(f"{side} = …" for side in sides)
        problems.add(place, f"expected {{ {shape} }}, got {shown(table)}")
        return Growth(), Growth()
    report_unknown(table, sides, place, problems)
    one, other = (_side(side, table, parameters, place, problems) for side in sides)
    return one, other


def _side(
    side: str,
    table: Mapping[str, object],
    parameters: Mapping[str, Parameter],
    place: Place,
    problems: Problems,
) -> Growth:
    try:
        growth = parse_growth(table.get(side, 0), {name: each.type for name, each in parameters.items()})
    except ValueError as error:
        problems.add(place.child(side), str(error))
        return Growth()
    for name in growth.names:
        if (parameters[name].minimum or 0) < 0 or parameters[name].minimum is None:
            problems.add(place.child(side), f"parameter {name} needs minimum >= 0 to stand for a growth")
    return growth
