"""Sends captures through a policy's chain: loader, chain builder and replay as they are."""

from collections.abc import Callable
from pathlib import Path

import pytest

from layer45.replay import Summary, replay

from .captures import configure

Send = Callable[..., Summary]


def balanced(summary: Summary) -> bool:
    """Nothing is lost without a count, and the engine holds nothing any more."""
    untouched = sum(summary.untouched.values())
    return (
        summary.read + summary.injected == summary.written + summary.dropped
        and summary.read == untouched + summary.customized
        and set(summary.live.values()) == {0}
    )


@pytest.fixture
def send(tmp_path: Path) -> Send:
    """send(source, target, *instances, direction=, match=, more=) -> Summary, with balanced counters."""

    def run(
        source: Path,
        target: Path,
        *instances: str,
        direction: str = "egress",
        match: str = '{ protocol = "udp" }',
        more: str = "",
        reference: bool = False,
        seed: int = 1,
    ) -> Summary:
        config = configure(tmp_path / "config", *instances, match=match, more=more)
        summary = replay(config, "bench", direction, source, target, seed=seed, reference=reference)
        assert balanced(summary), summary
        return summary

    return run
