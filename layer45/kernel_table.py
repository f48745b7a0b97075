"""The [kernel] table of module.toml: what of the module the kernel can do by itself (packet_path.py).

    [kernel]
    when    = { every = 0 }       # only with these values of parameters
    length  = "length"            # the parameter with the lengths of payloads that it chooses
    prefix  = "prefix"            # the one with what these begin with
    invert  = "invert"            # the one that turns the choice around
    counts  = ["selected"]        # counters of what is chosen
    verdict = "drop"              # what becomes of it: "drop" or "pass"

All but the verdict may be left out. With no code to it, there is nothing to load and to trust: the engine's
code and this table must say the same, and a module's tests see to that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from layer45.parameter import Parameter
from layer45.problems import Place, Problems
from layer45.suggest import did_you_mean
from layer45.table import read_table

LONGEST_PREFIX_BYTES = 32  # which the engine has in its hands, too, of all packets that the kernel knows
TYPES = {"length": "range", "prefix": "bytes", "invert": "boolean"}  # of the parameters that they name
EMPTY = ("growth_bytes", "stream_growth", "emits", "holds", "lets_go")  # of [module]


@dataclass(frozen=True)
class KernelPart:
    """The table. when: by parameter, as it is after validation."""

    verdict: Literal["drop", "pass"]
    counts: tuple[str, ...] = ()
    when: dict[str, Any] = field(default_factory=dict)
    length: str = ""
    prefix: str = ""
    invert: str = ""

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
    for key in ("length", "prefix", "invert"):
        if key in values:
            _check_parameter(key, values[key], parameters, place, found)
    for at, name in enumerate(values.get("counts", ())):
        if name not in (known := tuple(counters)):
            found.add(place.child("counts", at), f'no counter "{name}"{_hint(name, known)}')
    values["when"] = _when(values.get("when", {}), parameters, place.child("when"), found)
    for key in EMPTY:
        if _is_set(module.get(key)):
            found.add(place, f"the kernel does nothing of what module.{key} says; expected none of either")
    problems.extend(found)
    return None if found else KernelPart(**values)


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
