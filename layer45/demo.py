"""`make demo`: unmodified programs under a policy, and the same programs beside them that nobody touches.

Two scenes, each on two hosts made for it (demo_hosts.py): in demo_tag.py every datagram says who sent it, in
demo_fec.py a link loses datagrams, and a program hardly notices. What the applications saw, what was on the
wire and what the engines counted must agree, or the demo fails. A picture (demo_picture.py) puts the second
scene among other codes and other links. It needs root, takes less than a minute, and leaves nothing behind
but that picture.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from layer45 import demo_fec, demo_picture, demo_tag
from layer45.demo_hosts import DemoError
from layer45.errors import Layer45Error

SCENES = "tag", "fec", "picture"
PICTURE = Path("fec-residual-loss.png")


def _stopped(*_: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # cleaning up is not to be interrupted
    raise KeyboardInterrupt


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="layer45.demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", nargs="*", metavar="|".join(SCENES), help="default: all")
    parser.add_argument("--file", type=Path, default=PICTURE, help="for the picture; default %(default)s")
    options = parser.parse_args()
    if unknown := set(options.scenes) - set(SCENES):
        parser.error(f"no scene {', '.join(sorted(unknown))}; expected {', '.join(SCENES)}")
    return options


def play(scenes: list[str], picture: Path, console: Console) -> None:
    """In this order. Raises DemoError."""
    if "tag" in scenes:
        demo_tag.play(console)
    live = demo_fec.play(console) if "fec" in scenes else None
    if "picture" in scenes:
        demo_picture.play(console, live, picture)


def main() -> int:
    """0, or 1 with one line on stderr."""
    options = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    if os.geteuid():
        print("demo: needs root: sudo make demo", file=sys.stderr)
        return 1
    try:
        play(options.scenes or list(SCENES), options.file, Console(highlight=False))
    except (DemoError, Layer45Error, OSError, subprocess.TimeoutExpired) as error:
        print(f"demo: FAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
