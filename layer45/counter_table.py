"""The [counter.NAME] and [ratio.NAME] tables of module.toml."""

from collections.abc import Iterable
from dataclasses import dataclass

from layer45.problems import Place, Problems, shown
from layer45.ratio import Ratio
from layer45.suggest import did_you_mean
from layer45.table import check_name, read_table


@dataclass(frozen=True)
class Counter:
    """What is counted. notice: an operator should hear of the first."""

    help: str
    notice: bool = False


def read_counters(tables: object, place: Place, problems: Problems) -> dict[str, Counter]:
    """By name, in the file's order. Wrong ones are problems, and still there."""
    if not isinstance(tables, dict):
        problems.add(place, f"expected tables [counter.NAME], got {shown(tables)}")
        return {}
    counters = {}
    for name, table in tables.items():
        check_name(name, place.child(name), problems)
        counters[name] = Counter(**{"help": "", **read_table(table, Counter, place.child(name), problems)})
    return counters


def read_ratios(
    tables: object, counters: Iterable[str], place: Place, problems: Problems
) -> dict[str, Ratio]:
    """By name, in the file's order. counters: the module's. Wrong ones are problems and left out."""
    if not isinstance(tables, dict):
        problems.add(place, f"expected tables [ratio.NAME], got {shown(tables)}")
        return {}
    known = tuple(counters)
    read = {
        name: _read_ratio(name, table, known, place.child(name), problems) for name, table in tables.items()
    }
    return {name: ratio for name, ratio in read.items() if ratio}


def _read_ratio(
    name: str, table: object, known: tuple[str, ...], place: Place, problems: Problems
) -> Ratio | None:
    found = Problems()
    check_name(name, place, found)
    if name in known:
        found.add(place, f"{name} is a counter; expected another name")
    values = read_table(table, Ratio, place, found)
    for key in ("of", "to"):
        _check_sum(values.get(key), known, place.child(key), found)
    problems.extend(found)
    return None if found else Ratio(**values)


def _check_sum(
    names: tuple[str, ...] | None, known: tuple[str, ...], place: Place, problems: Problems
) -> None:
    """None: has a problem already."""
    if names == ():
        problems.add(place, "expected at least one counter")
    for at, name in enumerate(names or ()):
        if name not in known:
            hint = did_you_mean(name, known) or f"; it has {', '.join(known) or 'none'}"
            problems.add(place.child(at), f'no counter "{name}"{hint}')
