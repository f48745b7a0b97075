"""Runs the programs that change netfilter; their failure becomes one clear line."""

import re
import subprocess
from collections.abc import Sequence

from layer45.rules.errors import RulesError

TIMEOUT_S = 30
_LINE = re.compile(r"line:? (\d+)|^[^:\s]+:(\d+):\d+")


def run(argv: Sequence[str], text: str = "") -> str:
    """Run argv with text on its standard input; its standard output. Raises RulesError."""
    try:
        done = subprocess.run(
            list(argv), input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        raise RulesError(f"{argv[0]}: no such program; expected it in PATH") from None
    except subprocess.TimeoutExpired:
        raise RulesError(f"{argv[0]}: did not end within {TIMEOUT_S} s") from None
    if done.returncode:
        raise RulesError(f"{argv[0]}: {_reason(done.stderr, text)}")
    return done.stdout


def _reason(stderr: str, text: str) -> str:
    said = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("Try ")]
    reason = " ".join(said[:2]) or "failed without a word"
    found = _LINE.search(stderr)
    lines = text.splitlines()
    number = int(found[1] or found[2]) if found else 0
    return f"{reason} (in: {lines[number - 1].strip()})" if 0 < number <= len(lines) else reason
