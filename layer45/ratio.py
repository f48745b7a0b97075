"""What a module's counters come to: one sum of them to another, by [ratio.NAME] of its module.toml."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """The sum of the counters `of` to the sum of the counters `to`."""

    of: tuple[str, ...]
    to: tuple[str, ...]
    help: str


Ratios = Mapping[str, Ratio]


def with_ratios(instances: Iterable[Mapping[str, Any]], ratios: Mapping[str, Ratios]) -> list[dict[str, Any]]:
    """Instances as the engine tells them ("module", "counters"), with their "ratios". ratios: by module."""
    return [
        {**each, "ratios": _values(each["counters"], ratios.get(each["module"], {}))} for each in instances
    ]


def _values(counters: Mapping[str, int], ratios: Ratios) -> dict[str, float | None]:
    """Of those ratios whose counters are all here; None where the divisor is 0."""
    return {
        name: _divided(sum(counters[each] for each in ratio.of), sum(counters[each] for each in ratio.to))
        for name, ratio in ratios.items()
        if counters.keys() >= {*ratio.of, *ratio.to}
    }


def _divided(part: int, whole: int) -> float | None:
    return part / whole if whole else None
