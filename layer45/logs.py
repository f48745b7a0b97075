"""Structured logs on standard error: key=value for people, JSON for machines."""

import contextlib
import sys
from typing import Any

import structlog

FIRST_KEYS = ["time", "level", "event"]


class _StandardError:
    """A reader of the log that has gone must not take the daemon with it."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def open_log(as_json: bool = False) -> Any:
    """The daemon's log. Safe to use from every thread."""
    renderer: Any
    if as_json:
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.processors.LogfmtRenderer(key_order=FIRST_KEYS, bool_as_flag=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(_StandardError()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger()
