"""What a command prints: one JSON document, or tables; with colours and frames only on a terminal."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

GAP = "  "
STYLES = {"ok": "green", "missing": "bold red", "warn": "yellow", "yes": "green", "no": "red"}


class Figure(str):
    """A number that is a text already; in a table it stands right, as numbers do."""


def print_json(document: Any) -> None:
    """One JSON document on standard output, indented, keys in the order they were made."""
    import msgspec

    encoded = msgspec.json.encode(document, enc_hook=_readable)
    print(msgspec.json.format(encoded, indent=2).decode())


def _readable(value: object) -> object:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def print_error(line: str) -> None:
    """One line on standard error."""
    print("layer45: " + " ".join(line.splitlines()), file=sys.stderr)


def print_table(heads: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A table; nothing at all when there are no rows. Numbers and figures stand right."""
    cells = [tuple(row) for row in rows]
    if not cells:
        return
    if sys.stdout.isatty():
        _print_framed(heads, cells, title)
    else:
        _print_plain(heads, cells, title)


def _print_plain(heads: Sequence[str], rows: list[tuple[object, ...]], title: str) -> None:
    """Aligned columns, never cut: a pipe has no width."""
    texts = [tuple(heads), *(tuple(_text(cell) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    if title:
        print(title)
    for number, line in enumerate(texts):
        cells = rows[number - 1] if number else heads
        columns = zip(line, widths, cells, strict=True)
        print(GAP.join(t.rjust(w) if _stands_right(c) else t.ljust(w) for t, w, c in columns).rstrip())


def _print_framed(heads: Sequence[str], rows: list[tuple[object, ...]], title: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for at, head in enumerate(heads):
        table.add_column(head, justify="right" if _stands_right(rows[0][at]) else "left")
    for row in rows:
        texts = [_text(cell) for cell in row]
        table.add_row(*(Text(text, style=STYLES.get(text, "")) for text in texts))
    Console().print(table)


def _stands_right(cell: object) -> bool:
    return isinstance(cell, int | float | Figure)


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return "" if cell is None else str(cell)
