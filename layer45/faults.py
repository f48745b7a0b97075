"""Faults of modules written in Python, as one line each; the engine logs them with their traceback."""

import logging
import threading
import traceback
from collections.abc import Callable


class FaultLines(logging.Handler):
    """Gives each record to tell as one line: what failed, where in the module's code, and why."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Called by any thread."""
        self._tell(_line(record))


def tell_faults(tell: Callable[[str], None]) -> None:
    """From now on, whatever is logged below "layer45" is told this way, and no other."""
    log = logging.getLogger("layer45")
    log.handlers = [FaultLines(tell)]
    log.propagate = False


def _line(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return record.getMessage()
    files = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(".py")]
    place = f"{files[-1].filename}:{files[-1].lineno}: " if files else ""
    return f"{place}{record.getMessage()}: {one_line(error)}"


def is_interrupt(error: BaseException) -> bool:
    """Whether the user wants to end the program: only its main thread hears of that."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def one_line(error: BaseException) -> str:
    """What foreign code raised: its class, and what it says of itself, if it can."""
    try:
        text = error.msg if isinstance(error, SyntaxError) else error  # without the place
        return " ".join(f"{type(error).__name__}: {text}".split())
    except Exception:
        return type(error).__name__
