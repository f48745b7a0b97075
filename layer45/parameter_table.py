"""The [param.NAME] tables of module.toml -> Parameter."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from layer45.parameter import INTEGER_MAX, INTEGER_MIN, LONGEST_BYTES, Parameter
from layer45.policy import RESERVED
from layer45.problems import Place, Problems, shown
from layer45.table import bounds, check_name, read_table

Integer = Annotated[int, Meta(ge=INTEGER_MIN, le=INTEGER_MAX)]
Natural = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Size = Annotated[int, Meta(ge=0, le=LONGEST_BYTES)]


@dataclass(frozen=True)
class _Common:
    type: str
    help: str
    unit: str = ""
    required: bool = False
    local: bool = False
    default: Any = None


@dataclass(frozen=True)
class _Integer(_Common):
    minimum: Integer | None = None
    maximum: Integer | None = None
    names: dict[str, Integer] = field(default_factory=dict)


@dataclass(frozen=True)
class _Number(_Common):
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class _Range(_Common):
    minimum: Natural | None = None
    maximum: Natural | None = None


@dataclass(frozen=True)
class _Sized(_Common):
    min_bytes: Size = 0
    max_bytes: Size = LONGEST_BYTES


@dataclass(frozen=True)
class _Bytes(_Sized):
    peer: str = ""


@dataclass(frozen=True, kw_only=True)
class _Choice(_Common):
    choices: tuple[str, ...]
    needs: dict[str, str] | None = None


@dataclass(frozen=True)
class _TypeTable:
    type: Literal["integer", "number", "boolean", "text", "bytes", "choice", "range"]


_SHAPES: dict[str, type] = {
    "integer": _Integer,
    "number": _Number,
    "boolean": _Common,
    "text": _Sized,
    "bytes": _Bytes,
    "choice": _Choice,
    "range": _Range,
}


def read_parameters(tables: object, place: Place, problems: Problems) -> dict[str, Parameter]:
    """All parameters, by name, in the file's order. Wrong ones are problems and left out."""
    if not isinstance(tables, dict):
        problems.add(place, f"expected tables [param.NAME], got {shown(tables)}")
        return {}
    read = {name: _read(name, table, place.child(name), problems) for name, table in tables.items()}
    parameters = {name: parameter for name, parameter in read.items() if parameter}
    for name, parameter in parameters.items():
        _check_peer(parameter, read, place.child(name, "peer"), problems)
    return parameters


def _read(name: str, table: object, place: Place, problems: Problems) -> Parameter | None:
    found = Problems()
    parameter = _read_one(name, table, place, found)
    problems.extend(found)
    return None if found else parameter


def _read_one(name: str, table: object, place: Place, problems: Problems) -> Parameter | None:
    check_name(name, place, problems)
    if name in RESERVED:
        problems.add(place, f"{name} is a key of every chain entry; expected another name")
    shape = _SHAPES.get(_type_of(table, place, problems))
    values = read_table(table, shape, place, problems) if shape else {}
    if problems:
        return None
    if values.get("needs", {}) is None:
        del values["needs"]
    parameter = Parameter(name=name, **{key: each for key, each in values.items() if key != "default"})
    _check(parameter, values, place, problems)
    return _with_default(parameter, values, place, problems)


def _check_peer(
    parameter: Parameter, read: Mapping[str, Parameter | None], place: Place, problems: Problems
) -> None:
    others = {name for name, each in read.items() if each is None or (each.type == "bytes" and each.local)}
    if parameter.peer and not (parameter.local and parameter.peer in others):
        text = "expected another parameter of type bytes, both with local = true"
        problems.add(place, f"{parameter.peer}: {text}")


def _type_of(table: object, place: Place, problems: Problems) -> str:
    only = {"type": table["type"]} if isinstance(table, dict) and "type" in table else {}
    return read_table(only if isinstance(table, dict) else table, _TypeTable, place, problems).get("type", "")


def _check(parameter: Parameter, values: Mapping[str, Any], place: Place, problems: Problems) -> None:
    low, high = parameter.minimum, parameter.maximum
    if low is not None and high is not None and low > high:
        problems.add(place.child("maximum"), f"expected at least minimum {low}, got {high}")
    if parameter.min_bytes > parameter.max_bytes:
        text = f"expected at least min_bytes {parameter.min_bytes}, got {parameter.max_bytes}"
        problems.add(place.child("max_bytes"), text)
    if values.get("choices") == ():
        problems.add(place.child("choices"), "expected at least one value")
    for name, number in parameter.names.items():
        if not parameter.within(number):
            text = f"expected an integer{bounds(parameter.minimum, parameter.maximum)}, got {number}"
            problems.add(place.child("names", name), text)
    for choice in parameter.needs:
        if choice not in parameter.choices:
            problems.add(
                place.child("needs", choice), f"not among the choices {', '.join(parameter.choices)}"
            )


def _with_default(
    parameter: Parameter, values: Mapping[str, Any], place: Place, problems: Problems
) -> Parameter | None:
    if ("default" in values) == parameter.required:
        both = (
            "both default and required = true"
            if parameter.required
            else "neither default nor required = true"
        )
        problems.add(place, f"has {both}; expected one of them")
    if problems or parameter.required:
        return parameter
    try:
        return replace(parameter, default=parameter.parse(values["default"]))
    except ValueError as error:
        problems.add(place.child("default"), str(error))
        return None
