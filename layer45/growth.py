"""The worst-case growth of an instance: "12 + len(id)" in a manifest, evaluated with its parameters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from layer45.suggest import did_you_mean

_TERM = re.compile(
    r"(?P<number>\d{1,9})|(?P<name>[a-z][a-z0-9_]*)|len\(\s*(?P<sized>[a-z][a-z0-9_]*)\s*\)", re.ASCII
)
SIZED = ("bytes", "text")


@dataclass(frozen=True)
class Growth:
    """A sum of bytes: a constant, parameters' values, parameters' lengths."""

    constant: int = 0
    names: tuple[str, ...] = ()
    sized: tuple[str, ...] = ()

    def evaluate(self, values: Mapping[str, object]) -> int:
        """Bytes, for validated values of all parameters."""
        numbers = sum(_number(values[name]) for name in self.names)
        return self.constant + numbers + sum(_length(values[name]) for name in self.sized)


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _length(value: object) -> int:
    return len(value.encode() if isinstance(value, str) else value)  # type: ignore[arg-type]


def parse_growth(source: object, types: Mapping[str, str]) -> Growth:
    """types: of the module's parameters, by name. Raises ValueError with what was expected."""
    if isinstance(source, int) and not isinstance(source, bool) and 0 <= source <= 65535:
        return Growth(source)
    if not isinstance(source, str):
        raise ValueError("expected bytes 0..65535, or a sum of integers, parameter names and len(parameter)")
    terms = [_term(text.strip(), types) for text in source.split("+")]
    return Growth(
        sum(term.constant for term in terms),
        tuple(name for term in terms for name in term.names),
        tuple(name for term in terms for name in term.sized),
    )


def _term(text: str, types: Mapping[str, str]) -> Growth:
    found = _TERM.fullmatch(text)
    if not found:
        raise ValueError(f'expected an integer, a parameter name or len(parameter), got "{text}"')
    if found["number"]:
        return Growth(int(found["number"]))
    name = found["name"] or found["sized"]
    if name not in types:
        raise ValueError(f'no parameter "{name}"{did_you_mean(name, types)}')
    allowed = ("integer",) if found["name"] else SIZED
    if types[name] not in allowed:
        raise ValueError(f'"{text}" needs a parameter of type {" or ".join(allowed)}; it is {types[name]}')
    return Growth(names=(name,)) if found["name"] else Growth(sized=(name,))
