"""`layer45 restart`: asks for a successor, and waits until it is in charge or has failed."""

import contextlib
import time
from pathlib import Path
from typing import Any

from layer45.config import load_settings
from layer45.control_client import ask
from layer45.control_messages import Restart, Status
from layer45.errors import ConfigError, Layer45Error

LIMIT_S = 60.0
LOOK_S = 0.05


def restart(configuration: Path) -> dict[str, Any]:
    """{"pid": the successor's, "predecessor": the pid before}.

    Raises Layer45Error; if the successor has said why it cannot take over, nothing has changed.
    """
    path = Path(load_settings(configuration).control_socket)
    begun: dict[str, Any] = ask(path, Restart(), configuration)
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        time.sleep(LOOK_S)
        now = _status(path, configuration)
        if now.get("pid") == begun["pid"]:
            return begun
        problems = (now.get("successor") or {}).get("problems")
        if problems:
            raise ConfigError(problems)
    raise Layer45Error(f"pid {begun['pid']} did not take over within {LIMIT_S:g} s; the log says why")


def _status(path: Path, configuration: Path) -> dict[str, Any]:
    """Nothing while it changes hands."""
    with contextlib.suppress(Layer45Error):
        return dict(ask(path, Status(), configuration))
    return {}
