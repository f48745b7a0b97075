"""A TOML table checked key by key against a dataclass, so that all its wrong keys are reported."""

import re
from collections.abc import Iterable
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect

from layer45.problems import Place, Problems, shown
from layer45.suggest import did_you_mean

NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


@cache
def _hints(shape: type) -> dict[str, Any]:
    hints = get_type_hints(shape, include_extras=True)
    return {each.name: hints[each.name] for each in fields(shape) if each.init}


@cache
def _required(shape: type) -> tuple[str, ...]:
    return tuple(
        each.name
        for each in fields(shape)
        if each.init and each.default is MISSING and each.default_factory is MISSING
    )


def read_table(table: object, shape: type, place: Place, problems: Problems) -> dict[str, Any]:
    """The keys whose values have the type that the dataclass `shape` gives them; all others are problems."""
    if not isinstance(table, dict):
        problems.add(place, f"expected a table, got {shown(table)}")
        return {}
    report_unknown(table, _hints(shape), place, problems)
    for name in _required(shape):
        if name not in table:
            problems.add(place.child(name), f"missing; expected {expectation(_hints(shape)[name])}")
    values = {}
    for name in _hints(shape).keys() & table.keys():
        try:
            values[name] = _converted(table[name], _hints(shape)[name])
        except ValueError as error:
            problems.add(place.child(name), str(error))
    return values


def report_unknown(table: Iterable[str], known: Iterable[str], place: Place, problems: Problems) -> None:
    """A problem for each key that is not known."""
    names = list(known)
    for key in table:
        if key not in names:
            hint = did_you_mean(key, names) or f"; expected one of {', '.join(names)}"
            problems.add(place.child(key), f"unknown key{hint}")


def check_name(name: str, place: Place, problems: Problems) -> None:
    """A problem if a table's name, as the user chose it, is not lower-case with underscores."""
    if not NAME.fullmatch(name):
        problems.add(place, "expected a name of lower-case letters, digits and _, a letter first")


def _converted(value: object, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError:
        guess = _closest(value, hint)
        raise ValueError(f"expected {expectation(hint)}, got {shown(value)}{guess}") from None


def _closest(value: object, hint: Any) -> str:
    kind = inspect.type_info(hint)
    if isinstance(value, str) and isinstance(kind, inspect.LiteralType):
        return did_you_mean(value, [str(name) for name in kind.values])
    return ""


def expectation(hint: Any) -> str:
    """What a type allows, in words."""
    return _words(inspect.type_info(hint))


def _words(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata(type=inner):
            return _words(inner)
        case inspect.IntType(ge=low, le=high):
            return f"integer{bounds(low, high)}"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(f'"{value}"' for value in values)
        case inspect.VarTupleType(item_type=item):
            return f"list of {_words(item)}"
        case inspect.UnionType(types=types):
            return " or ".join(_words(each) for each in types if not isinstance(each, inspect.NoneType))
    return _PLAIN_WORDS.get(type(kind), "a value")


_PLAIN_WORDS: dict[type, str] = {
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.FloatType: "number",
    inspect.DictType: "a table",
}


def bounds(low: float | None, high: float | None) -> str:
    """ " 1..1000", " >= 1", " <= 1000" or nothing."""
    if low is not None and high is not None:
        return f" {low}..{high}"
    if low is not None:
        return f" >= {low}"
    return f" <= {high}" if high is not None else ""
