"""What the instances of a chain have counted, as people read it."""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from layer45.output import Figure

DIGITS = 4


def figures(instance: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """An instance's counters, then its ratios, each with its name."""
    yield from instance["counters"].items()
    yield from ((name, _ratio_text(value)) for name, value in instance["ratios"].items())


def figures_line(instances: Iterable[dict[str, Any]]) -> str:
    """Those that are not 0: "fec: sources 120, repairs 36; tag: gaps 1"."""
    told = [(each["module"], _told(each)) for each in instances]
    return "; ".join(f"{module}: {text}" for module, text in told if text)


def _told(instance: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures(instance) if value not in (0, "0", "-"))


def _ratio_text(value: float | None) -> Figure:
    """Four significant digits, no exponent."""
    return Figure("-" if value is None else f"{Decimal(f'{value:.{DIGITS}g}'):f}")
