"""A signed module's files are exchanged all the time, also while it is loaded: the others never run."""

import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from layer45.errors import ConfigError
from layer45.loader import load_code
from layer45.module_sign import sign_module
from layer45.module_signature import make_key, read_private

GOOD = "class Module:\n    signed = True\n    def egress(self, packet): ...\n"
EVIL = GOOD.replace("True", "False")
SECONDS = 2.0

# Exchanges a file, or a whole folder, for another one and back until its input ends.
SWAPPER = """
import os, select, sys
one, other = sys.argv[1:]
print("swapping", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    os.rename(one, one + ".gone")
    os.rename(other, one)
    os.rename(one + ".gone", other)
"""


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    words = [sys.executable, "-c", SWAPPER, str(one), str(other)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as swapper:
        assert swapper.stdout and swapper.stdout.readline() == "swapping\n"
        try:
            yield
        finally:
            swapper.communicate("", timeout=10)


@pytest.mark.parametrize("name", ["swap/swap.py", "swap"])
def test_what_runs_is_what_was_signed(configuration: Any, tmp_path: Path, name: str) -> None:
    folder: Path = configuration.module("swap", code=GOOD)
    evil: Path = configuration.module("evil", code=EVIL)
    (evil / "swap.py").write_text(EVIL)
    public = make_key(tmp_path / "key")
    (configuration.directory / "trust.toml").write_text(
        f'[key.k]\ned25519 = "{b64encode(public).decode()}"\n'
    )
    configuration.policies('[policy.p]\nmatch = { protocol = "udp" }\nchain = [ { module = "swap" } ]\n')
    sign_module(folder, read_private(tmp_path / "key"))
    for file in ("module.toml", "module.sig"):  # it claims all that the signed one does
        (evil / file).write_bytes((folder / file).read_bytes())
    evil = evil.rename(tmp_path / "evil")
    seen: Counter[object] = Counter()
    with swapping(folder.parent / name, evil / "swap.py" if name.endswith(".py") else evil):
        until = time.monotonic() + SECONDS
        while time.monotonic() < until or len(seen) < 2:
            assert time.monotonic() < until + 20, seen
            seen[_loaded(configuration)] += 1
    assert set(seen) == {True, "refused"}


def _loaded(configuration: Any) -> object:
    try:
        plan = configuration.load()
        load_code(plan)
    except ConfigError:
        return "refused"
    return plan.chains[0].instances[0].module.python_class.signed
