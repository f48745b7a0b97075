"""`make demo`: unmodified programs under a policy, and the same programs beside them that nobody touches.

The scene is demo_tag.py's, on two hosts made for it (demo_hosts.py). What the applications saw, what was on
the wire and what the engines counted must agree, or the demo fails. It needs root, takes some ten seconds, and
leaves nothing behind.
"""

import os
import signal
import subprocess
import sys
from typing import NoReturn

from rich.console import Console

from layer45 import demo_tag
from layer45.demo_hosts import DemoError
from layer45.errors import Layer45Error


def _stopped(*_: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # cleaning up is not to be interrupted
    raise KeyboardInterrupt


def main() -> int:
    """0, or 1 with one line on stderr."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    if os.geteuid():
        print("demo: needs root: sudo make demo", file=sys.stderr)
        return 1
    try:
        demo_tag.play(Console(highlight=False))
    except (DemoError, Layer45Error, OSError, subprocess.TimeoutExpired) as error:
        print(f"demo: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
