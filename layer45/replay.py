"""`layer45 replay`: a capture through a policy's chain, without root and without the kernel.

The chain, the worker and its timers are those of the live engine; the clock is the capture's. To which
packets the policy applies is read from the packets themselves: protocol, addresses and ports of its match,
with local = source on egress and local = destination on ingress. The keys user, group and cgroup cannot be
seen in a capture and are assumed to match; an `unless` that has one of them is left out. Other policies, of
whatever priority, play no part.

Packets that the policy is not for, that cannot be parsed or were not captured whole, are copied unchanged and
counted by reason. A rewritten packet keeps its link header and timestamp, and loses what Ethernet padded it
with. One that a module adds has the link header of the packet it was made from. One that a module held, added
or delayed has the time at which it left. The output is pcap in this machine's byte order, with nanoseconds
unless the input is pcap without them.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layer45.capture_files import opening, reading, size, writing
from layer45.errors import Layer45Error
from layer45.fastpath.capture import Reader, Writer
from layer45.fastpath.chain import ClassTable
from layer45.fastpath.match import Match
from layer45.fastpath.replay import REASONS, Replay
from layer45.fastpath.worker import Worker
from layer45.rules.diversion import Selector
from layer45.selector import as_policy_protocol

if TYPE_CHECKING:
    from layer45.config import Settings
    from layer45.loader import ChainPlan, Plan

BATCH_RECORDS = 65536  # between two looks at signals and two calls of progress
DIRECTIONS = {"egress": False, "ingress": True}

Progress = Callable[[int, float | None], None]


@dataclass(frozen=True)
class Summary:
    """What a replay did. read + injected = written + dropped, always.

    untouched: records copied as they were, by reason. customized: packets that went through the chain.
    engine: the engine's counters. instances: each module's counters, in the chain's order. live: objects left
    in the engine, all 0. error: what ended a damaged input early, one line; everything before it is in the
    output.
    """

    policy: str
    direction: str
    source: str
    target: str
    link: str
    read: int
    written: int
    customized: int
    injected: int
    dropped: int
    untouched: dict[str, int]
    engine: dict[str, int]
    instances: list[dict[str, Any]]
    live: dict[str, int] = field(default_factory=dict)
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def replay(
    config_dir: Path | str,
    policy: str,
    direction: str,
    source: Path | str,
    target: Path | str,
    *,
    seed: int = 1,
    progress: Progress | None = None,
    reference: bool = False,
) -> Summary:
    """Sends the capture `source` through a policy's chain in one direction into the new capture `target`.

    direction: "egress" or "ingress". "-" is standard input or output. seed: of random choices; the same seed
    gives the same output. progress: called now and then with the records so far, and the share of the input
    (None for a pipe). reference: run the modules' plain Python references in place of their compiled code.
    Raises ConfigError for the configuration and Layer45Error for the captures, and then leaves no target
    behind. A damaged input is replayed as far as it can be read: Summary.error.
    """
    from layer45.loader import load

    if direction not in DIRECTIONS:
        raise Layer45Error(f"--direction: expected egress or ingress, got {direction}")
    plan = load(Path(config_dir))
    run = _Run(_chain_plan(plan, policy), plan.settings, seed, reference)
    with ExitStack() as stack:
        reader = stack.enter_context(reading(str(source)))
        output = stack.enter_context(opening(str(source), str(target)))
        writer = stack.enter_context(writing(reader, output))
        error = run.through(reader, writer, direction, progress, size(str(source)))
        output.publish(writer)
        return run.summary(direction, str(source), str(target), reader, writer, error)


def _chain_plan(plan: "Plan", policy: str) -> "ChainPlan":
    for each in plan.chains:
        if each.policy.name == policy:
            return each
    known = ", ".join(sorted(each.policy.name for each in plan.chains)) or "none"
    raise Layer45Error(f"--policy: there is no active policy {policy}; expected one of: {known}")


class _Run:
    """One chain on one worker, for one capture."""

    def __init__(self, plan: "ChainPlan", settings: "Settings", seed: int, reference: bool) -> None:
        from layer45.engine import build_chain

        self.plan = plan
        self.chain = build_chain(plan, workers=1, reference=reference)
        self.worker = _worker(settings, seed)
        self.worker.publish(ClassTable([self.chain]))
        self.counters: dict[str, int] = {}

    def through(
        self, reader: Reader, writer: Writer, direction: str, progress: Progress | None, total: int | None
    ) -> str | None:
        """Replays all that can be read; what is wrong with the rest, if anything."""
        match, class_id = _match(self.plan), self.plan.class_id
        replay = Replay(reader, writer, self.worker, match, class_id, DIRECTIONS[direction])
        try:
            error = self._all(replay, progress, total)
            replay.settle()
            self.counters = replay.counters()
        finally:
            replay.close()
        return error

    def _all(self, replay: Replay, progress: Progress | None, total: int | None) -> str | None:
        try:
            while replay.run(BATCH_RECORDS):
                if progress:
                    progress(replay.counters()["read"], _share(replay.reader.position, total))
        except ValueError as error:
            return str(error)
        return None

    def summary(
        self, direction: str, source: str, target: str, reader: Reader, writer: Writer, error: str | None
    ) -> Summary:
        """After `through`."""
        return Summary(
            policy=self.plan.policy.name,
            direction=direction,
            source=source,
            target=target,
            link=reader.link_name,
            written=writer.records,
            untouched={reason: self.counters[reason] for reason in REASONS},
            engine=self.worker.counters(),
            instances=self.chain.counters()["instances"],
            live=self.worker.live,
            error=error and f"{source}: damaged: {error}; the packets before are in {target}",
            **{name: self.counters[name] for name in ("read", "customized", "injected", "dropped")},
        )


def _worker(settings: "Settings", seed: int) -> Worker:
    return Worker(
        max_flows=settings.max_flows,
        max_held=settings.max_held,
        seed=seed,
        udp_idle_s=settings.udp_idle_s,
        tcp_idle_s=settings.tcp_idle_s,
    )


def _match(plan: "ChainPlan") -> Match:
    select = as_policy_protocol(plan.policy.match or Selector(), plan.protocols)
    return Match(select, plan.policy.unless)


def _share(position: int, total: int | None) -> float | None:
    return min(1.0, position / total) if total and position >= 0 else None
