"""The [kernel] table of module.toml: what of the module the kernel can do by itself (packet_path.py).

    [kernel]
    when    = { every = 0 }       # only with these values of parameters
    length  = "length"            # the parameter with the lengths of payloads that it chooses
    prefix  = "prefix"            # the one with what these begin with
    invert  = "invert"            # the one that turns the choice around
    counts  = ["selected"]        # counters of what is chosen
    verdict = "drop"              # what becomes of it: "drop", "pass" or "mark"
    dscp    = "dscp"              # with "mark": the parameter with the code point that it gets
    counts_changed = ["marked"]   # with "mark": counters of what had another one

All but the verdict, and with "mark" the code point, may be left out. With no code to it, there is nothing to
load and to trust: the engine's code and this table must say the same, and a module's tests see to that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from layer45.parameter import Parameter
from layer45.problems import Place, Problems
from layer45.suggest import did_you_mean
from layer45.table import read_table

LONGEST_PREFIX_BYTES = 32  # which the engine has in its hands, too, of all packets that the kernel knows
TYPES = {"length": "range", "prefix": "bytes", "invert": "boolean", "dscp": "integer"}  # of what they name
LARGEST_DSCP = 63
EMPTY = ("growth_bytes", "stream_growth", "emits", "holds", "lets_go")  # of [module]


@dataclass(frozen=True)
class KernelPart:
    """The table. when: by parameter, as it is after validation."""

    verdict: Literal["drop", "pass", "mark"]
    counts: tuple[str, ...] = ()
    when: dict[str, Any] = field(default_factory=dict)
    length: str = ""
    prefix: str = ""
    invert: str = ""
    dscp: str = ""
    counts_changed: tuple[str, ...] = ()

    def holds(self, values: Mapping[str, object]) -> bool:
        """Whether the kernel can do what these parameters ask for."""
        return all(values[name] == wanted for name, wanted in self.when.items())


def read_kernel_part(
    table: object,
    module: Mapping[str, Any],
    parameters: Mapping[str, Parameter],
    counters: Iterable[str],
    place: Place,
    problems: Problems,
) -> KernelPart | None:
    """None, with problems, where it is wrong. module: the keys of [module] that are right."""
    found = Problems()
    values = read_table(table, KernelPart, place, found)
    for key in TYPES:
        if key in values:
            _check_parameter(key, values[key], parameters, place, found)
    for key in ("counts", "counts_changed"):
        _check_counters(values.get(key, ()), tuple(counters), place.child(key), found)
    _check_mark(values, place, found)
    values["when"] = _when(values.get("when", {}), parameters, place.child("when"), found)
    for key in EMPTY:
        if _is_set(module.get(key)):
            found.add(place, f"the kernel does nothing of what module.{key} says; expected none of either")
    problems.extend(found)
    return None if found else KernelPart(**values)


def _check_counters(names: Iterable[str], known: tuple[str, ...], place: Place, found: Problems) -> None:
    for at, name in enumerate(names):
        if name not in known:
            found.add(place.child(at), f'no counter "{name}"{_hint(name, known)}')


def _check_mark(values: Mapping[str, Any], place: Place, found: Problems) -> None:
    """What goes with this verdict, and with no other."""
    marks = values.get("verdict") == "mark"
    if marks and "dscp" not in values:
        found.add(place.child("dscp"), 'missing; verdict "mark" takes a parameter with the code point')
    for key in ("dscp", "counts_changed"):
        if key in values and "verdict" in values and not marks:
            found.add(place.child(key), f'goes with verdict "mark" only, not with "{values["verdict"]}"')


def _check_parameter(
    key: str, name: str, parameters: Mapping[str, Parameter], place: Place, found: Problems
) -> None:
    parameter = parameters.get(name)
    if parameter is None:
        found.add(place.child(key), f'no parameter "{name}"{_hint(name, parameters)}')
    elif parameter.type != TYPES[key]:
        found.add(
            place.child(key), f"expected a parameter of type {TYPES[key]}; {name} is of {parameter.type}"
        )
    elif key == "prefix" and parameter.max_bytes > LONGEST_PREFIX_BYTES:
        found.add(
            place.child(key),
            f"parameter {name} needs max_bytes <= {LONGEST_PREFIX_BYTES} to stand for a prefix",
        )
    elif key == "dscp" and (parameter.minimum, parameter.maximum) != (0, LARGEST_DSCP):
        found.add(
            place.child(key),
            f"parameter {name} needs minimum = 0 and maximum = {LARGEST_DSCP} to stand for a code point",
        )


def _when(
    given: Mapping[str, object], parameters: Mapping[str, Parameter], place: Place, found: Problems
) -> dict[str, object]:
    values = {}
    for name, value in given.items():
        if name not in parameters:
            found.add(place.child(name), f'no parameter "{name}"{_hint(name, parameters)}')
            continue
        try:
            values[name] = parameters[name].parse(value)
        except ValueError as error:
            found.add(place.child(name), str(error))
    return values


def _hint(name: str, known: Iterable[str]) -> str:
    names = tuple(known)
    return did_you_mean(name, names) or f"; it has {', '.join(names) or 'none'}"


def _is_set(value: Any) -> bool:
    return any(value.values()) if isinstance(value, dict) else bool(value)
