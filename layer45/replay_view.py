"""What a replay tells: how far it is, while a person waits at a terminal, and what it did."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from layer45.figures import figures
from layer45.output import print_json, print_table

KEYS = ("read", "customized", "injected", "dropped", "sent_back", "written")


def progress_line() -> Callable[[int, float | None], None] | None:
    """None where nobody watches."""
    return _show_progress if sys.stderr.isatty() else None


def _show_progress(records: int, share: float | None) -> None:
    part = f" ({share:.0%})" if share is not None else ""
    print(f"\r{records} packets{part} ", end="", file=sys.stderr, flush=True)


def show_summary(summary: dict[str, Any], as_json: bool, to_stderr: bool) -> None:
    """Tables, or one JSON document; standard output may be taken by the capture itself."""
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    with contextlib.redirect_stdout(sys.stderr) if to_stderr else contextlib.nullcontext():
        if as_json:
            print_json(summary)
        else:
            _show_tables(summary)


def show_passes(summaries: list[dict[str, Any]], as_json: bool, to_stderr: bool) -> None:
    """As show_summary, for the passes of a replay through a network."""
    if sys.stderr.isatty():
        print("\r", end="", file=sys.stderr)
    with contextlib.redirect_stdout(sys.stderr) if to_stderr else contextlib.nullcontext():
        if as_json:
            print_json({"passes": summaries})
            return
        for summary in summaries:
            print(f"{summary['policy']}, {summary['direction']}: {summary['source']} -> {summary['target']}")
            _show_tables(summary)


def _show_tables(summary: dict[str, Any]) -> None:
    print_table(("PACKETS", "COUNT"), [(key, summary[key]) for key in KEYS])
    untouched = [(reason, count) for reason, count in summary["untouched"].items() if count]
    print_table(("COPIED AS THEY WERE", "COUNT"), untouched)
    rows = [
        (instance["module"], name, value)
        for instance in summary["instances"]
        for name, value in figures(instance)
        if value != 0
    ]
    print_table(("MODULE", "COUNTER", "VALUE"), rows)
