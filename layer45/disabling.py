"""Policies that are disabled because their chain fails too often, until a reload or a command puts them back.

The engine's workers look at one flag of the chain, which is set here: its packets go round it, and on_failure
decides what becomes of them. TCP connections that the peer customizes, too, cannot go on so: they are closed.
"""

import time
from collections.abc import Callable, Collection
from typing import Any, Protocol

from layer45.failures import ChainKey, FailureWatch, Finding, Tally
from layer45.life_cycle import iso


class Engine(Protocol):
    """What is needed of layer45.engine.Engine."""

    def tallies(self) -> list[Tally]: ...
    def disable(self, key: ChainKey, disabled: bool) -> None: ...
    def customized(self, policies: Collection[str] | None = None) -> Collection[bytes]: ...


class Disabling:
    """The disabled policies of one daemon. threshold: see failures.py."""

    def __init__(self, threshold: int, log: Any) -> None:
        self._watch = FailureWatch(threshold)
        self._log = log
        self._disabled: dict[ChainKey, tuple[float, Finding]] = {}

    def look(self, engine: Engine, close: Callable[[Collection[bytes]], int]) -> None:
        """Disables what fails too often. close: ends the TCP connections of these keys; how many."""
        tallies = engine.tallies()
        present = {each.key for each in tallies}
        self._disabled = {key: why for key, why in self._disabled.items() if key in present}
        running = [each for each in tallies if each.key not in self._disabled]
        begun, others = self._watch.look(running, time.monotonic())
        for finding in begun:
            self._disable(engine, finding)
        for finding in others:
            self._log.error(
                "a chain fails on what others began", policy=finding.tally.policy, **finding.told()
            )
        agreeing = [each.policy for each in tallies if each.agrees and each.key in self._disabled]
        closed = close(engine.customized(agreeing)) if agreeing else 0
        if closed:
            self._log.warning("connections of disabled policies are closed", connections=closed)

    def _disable(self, engine: Engine, finding: Finding) -> None:
        engine.disable(finding.tally.key, True)
        self._disabled[finding.tally.key] = time.time(), finding
        packets = "pass as they are" if finding.tally.on_failure == "open" else "are dropped"
        self._log.error("policy disabled", policy=finding.tally.policy, **finding.told(), its_packets=packets)

    def put_back(self, engine: Engine, policy: str | None = None) -> bool:
        """Enables a policy, or all of them; what they did before is over. Whether one was disabled."""
        found = [
            each for each in engine.tallies() if each.key in self._disabled and policy in (None, each.policy)
        ]
        for each in found:
            engine.disable(each.key, False)
            del self._disabled[each.key]
            self._watch.begin(each, time.monotonic())
            self._log.info("policy put back", policy=each.policy)
        return bool(found)

    def describe(self, policy: str) -> dict[str, Any] | None:
        """As `layer45 status --json` has it; None: it is not disabled."""
        for since, finding in self._disabled.values():
            if finding.tally.policy == policy:
                return {"since": iso(since), **finding.told()}
        return None
