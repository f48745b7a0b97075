"""Chains that run in the kernel: for each class a map of counters, and the programs that rules ask.

    prepare:  maps and programs, these with names     before the rules come that ask them
    settle:   those of chains that are gone go        when the rules have changed
    close:    maps are let go; names stay until all of an owner's go (known.py), by whatever process

A rule keeps the program that had the name when it came. So, whoever installs rules gives its own the names
before: a successor that takes over does, and so does its predecessor if it gets its packets back.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from layer45.rules import bpf, pins
from layer45.rules.diversion import RulePlan
from layer45.rules.errors import RulesError
from layer45.rules.kernel_chain import (
    DROPPED,
    EGRESS_BYTES,
    EGRESS_PACKETS,
    INGRESS_BYTES,
    INGRESS_PACKETS,
    OWN_COUNTERS,
    KernelChain,
)
from layer45.rules.kernel_program import Verdict, program

Key = tuple[int, KernelChain]  # class and chain
PREFIX = "chain"


@dataclass(frozen=True)
class Counted:
    """What kernel chains have counted. of_class: each chain's own counters, then those of its steps.

    total: of all so far, whether they are still there or not.
    """

    of_class: dict[int, list[int]] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)


@dataclass
class _Running:
    """names: of its programs, each with the number of the file that we made."""

    counters: int  # the map's descriptor
    count: int
    names: dict[Path, int] = field(default_factory=dict)

    def counted(self) -> list[int]:
        return bpf.counted(self.counters, self.count)


class KernelChains:
    """Those of one daemon. Not for several threads at once."""

    def __init__(self) -> None:
        self._running: dict[Key, _Running] = {}
        self._past: Counter[str] = Counter()

    @property
    def opened(self) -> bool:
        """Whether there are any."""
        return bool(self._running)

    def prepare(self, plan: RulePlan) -> None:
        """Everything the plan's rules ask for; its programs have their names. Raises RulesError."""
        wanted = _wanted(plan)
        if not wanted:
            return
        place = pins.make(plan.owner)
        with _told():
            for key in wanted:
                running = self._running.get(key) or self._begin(key)
                _name(running, key, place)

    def _begin(self, key: Key) -> _Running:
        count = OWN_COUNTERS + key[1].counters
        running = _Running(bpf.create_counters(count, "layer45_chain"), count)
        self._running[key] = running
        return running

    def settle(self, plan: RulePlan) -> None:
        """What no rule of the plan asks any more goes, names too, whoever gave them. Raises RulesError."""
        wanted = _wanted(plan)
        with _told():
            for key in self._running.keys() - wanted:
                running = self._running.pop(key)
                self._past.update(_total(running.counted()))
                os.close(running.counters)
            named = {path for running in self._running.values() for path in running.names}
            for place in pins.existing(plan.owner):
                for path in place.glob(f"{PREFIX}*"):
                    if path not in named:
                        path.unlink()

    def counted(self) -> Counted:
        """All counters as they are now. Raises RulesError."""
        total = Counter(_total([0] * OWN_COUNTERS))
        total.update(self._past)
        of_class = {}
        with _told():
            for (class_id, _), running in self._running.items():
                of_class[class_id] = values = running.counted()
                total.update(_total(values))
        return Counted(of_class, dict(total))

    def close(self) -> None:
        """Lets go of the maps; names stay."""
        for running in self._running.values():
            os.close(running.counters)
        self._running = {}


def pinned_name(class_id: int, verdict: Verdict, begun: bool) -> str:
    """The name of a class's program."""
    what = f"dscp{verdict}" if isinstance(verdict, int) else verdict
    return f"{PREFIX}{class_id}-{'begun' if begun else 'came'}-{what}"


def verdicts(chain: KernelChain) -> tuple[Verdict, ...]:
    """Those that it has programs for, as they are to be asked."""
    return (*chain.dscps, "passes", "drops") if chain.drops else (*chain.dscps, "passes")


def _wanted(plan: RulePlan) -> set[Key]:
    return {(each.class_id, each.kernel) for each in plan.diversions if each.kernel}


def _name(running: _Running, key: Key, place: Path) -> None:
    """Gives its programs their names, where another's have them, or none."""
    class_id, chain = key
    for verdict in verdicts(chain):
        for begun in (True, False):
            path = place / pinned_name(class_id, verdict, begun)
            if path not in running.names or running.names[path] != _number(path):
                bpf.pin_filter(path, program(running.counters, chain, verdict, begun), "layer45_chain")
                running.names[path] = _number(path)


def _number(path: Path) -> int:
    return path.stat().st_ino if path.exists() else 0


def _total(values: list[int]) -> dict[str, int]:
    packets = values[EGRESS_PACKETS] + values[INGRESS_PACKETS]
    return {
        "received": packets,
        "received_bytes": values[EGRESS_BYTES] + values[INGRESS_BYTES],
        "passed": packets - values[DROPPED],
        "dropped": values[DROPPED],
    }


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RulesError(f"kernel chains: {error.strerror or error}") from None
