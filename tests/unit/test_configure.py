"""Compiled modules configure without the interpreter lock: other threads, and so the watchdog, go on."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from layer45.fastpath.chain import Chain, InstanceSpec

from .compiled import compiled


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return compiled(Path(__file__).parent / "slow_configure", tmp_path_factory.mktemp("slow"))


def test_other_threads_go_on_meanwhile(slow: Any) -> None:
    spec = InstanceSpec("slow", slow.ops)
    thread = threading.Thread(target=Chain, args=(1, "test", [spec]))
    begun = last = time.monotonic()
    thread.start()
    worst = 0.0
    while thread.is_alive():
        time.sleep(0.001)
        now = time.monotonic()
        worst, last = max(worst, now - last), now
    assert last - begun >= 0.3 and worst < 0.2
