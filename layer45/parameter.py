"""A module's parameter: declared once in module.toml, validated in every policy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from layer45.problems import shown
from layer45.suggest import did_you_mean
from layer45.table import bounds

TYPES = ("integer", "number", "boolean", "text", "bytes", "choice", "range")
INTEGER_MIN = -(1 << 63)
INTEGER_MAX = (1 << 63) - 1
LONGEST_BYTES = 65535
_RANGE = re.compile(r"\s*(\d{0,19})\s*(-?)\s*(\d{0,19})\s*", re.ASCII)

Range = tuple[int, int]  # first, last; inclusive


@dataclass(frozen=True)
class Parameter:
    """default is validated; None with required = true. minimum and maximum: of integer, number, range."""

    name: str
    type: str
    help: str
    unit: str = ""
    required: bool = False
    local: bool = False  # the two ends of a connection may differ in it
    default: object = None
    minimum: float | None = None
    maximum: float | None = None
    min_bytes: int = 0
    max_bytes: int = LONGEST_BYTES
    peer: str = ""  # the parameter that has the other end's value of this one
    choices: tuple[str, ...] = ()
    names: Mapping[str, int] = field(default_factory=dict, hash=False)  # of integers, what one may be called
    needs: Mapping[str, str] = field(
        default_factory=dict, hash=False
    )  # choice -> what a later module provides

    @property
    def expected(self) -> str:
        """What a policy may write, in words: "integer 1..1000 (ms)"."""
        words = {
            "integer": f"integer{self._shown_bounds}{self._shown_names}",
            "number": f"number{self._shown_bounds}",
            "boolean": "true or false",
            "text": f"text of {self.min_bytes}..{self.max_bytes} bytes",
            "bytes": f'text or "hex:00 ff" of {self.min_bytes}..{self.max_bytes} bytes',
            "choice": "one of " + ", ".join(f'"{each}"' for each in self.choices),
            "range": f'a range such as "0-100", or one integer,{self._shown_bounds or " >= 0"}',
        }[self.type]
        told = self.unit == "bytes" and self.type in ("bytes", "text")
        return words if told or not self.unit else f"{words} ({self.unit})"

    @property
    def _shown_bounds(self) -> str:
        return bounds(self.minimum, self.maximum)

    @property
    def _shown_names(self) -> str:
        return " or " + " ".join(f'"{each}"' for each in self.names) if self.names else ""

    def parse(self, value: object) -> object:
        """The value as int, float, bool, str, bytes, str (choice) or (first, last) (range).

        Raises ValueError: what was expected and what was found.
        """
        parsed = _PARSERS[self.type](self, value)
        if parsed is None:
            hint = did_you_mean(value, self.choices or tuple(self.names)) if isinstance(value, str) else ""
            raise ValueError(f"expected {self.expected}, got {shown(value)}{hint}")
        return parsed

    def fits(self, content: bytes) -> bool:
        """Whether min_bytes and max_bytes allow it."""
        return self.min_bytes <= len(content) <= self.max_bytes

    def within(self, number: float) -> bool:
        """Whether minimum and maximum allow it; without them, 64 bits do."""
        low = INTEGER_MIN if self.minimum is None else self.minimum
        high = INTEGER_MAX if self.maximum is None else self.maximum
        return low <= number <= high


def _integer(parameter: Parameter, value: object) -> int | None:
    if isinstance(value, str):
        return parameter.names.get(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and parameter.within(value) else None  # type: ignore[arg-type, return-value]


def _number(parameter: Parameter, value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if parameter.within(value) else None


def _boolean(_: Parameter, value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(parameter: Parameter, value: object) -> str | None:
    return value if isinstance(value, str) and parameter.fits(value.encode()) else None


def _bytes(parameter: Parameter, value: object) -> bytes | None:
    if not isinstance(value, str):
        return None
    if not value.startswith("hex:"):
        return value.encode() if parameter.fits(value.encode()) else None
    try:
        content = bytes.fromhex(value.removeprefix("hex:"))
    except ValueError:
        return None
    return content if parameter.fits(content) else None


def _choice(parameter: Parameter, value: object) -> str | None:
    return value if isinstance(value, str) and value in parameter.choices else None


def _range(parameter: Parameter, value: object) -> Range | None:
    ends = _range_ends(parameter, value)
    if ends is None:
        return None
    first, last = ends
    return ends if first <= last and parameter.within(first) and parameter.within(last) else None


def _range_ends(parameter: Parameter, value: object) -> Range | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value, value
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if not found or not (found[1] or found[3]):
        return None
    if not found[2]:
        return None if found[1] and found[3] else (int(found[1] or found[3]),) * 2
    low = 0 if parameter.minimum is None else int(parameter.minimum)
    high = INTEGER_MAX if parameter.maximum is None else int(parameter.maximum)
    return int(found[1] or low), int(found[3] or high)


_PARSERS = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "text": _text,
    "bytes": _bytes,
    "choice": _choice,
    "range": _range,
}
