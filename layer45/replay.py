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

TCP connections whose chain needs the peer's agreement have both of their ends here (replay_far.py). On egress
the capture has what the two hosts would have sent without the policy, on ingress what two hosts that have it
sent each other; either way all packets of a connection are customized, or restored, whoever sent them. Where
the match selects both hosts, who sent a connection's first packet is taken to be the policy's. A connection
whose SYN is not in the capture stays as it is, and so does a packet that was not captured whole: the rest of
its connection is customized all the same. Counters are those of the policy's host: what it sent and what it
received.

On egress and in again, such a capture comes back byte for byte, but for the MSS in SYNs, which is lower; for
windows that would have passed 65,535 units on the wire; and for packets that would have passed 65,531 bytes,
which come back in pieces.

`replay_through` is three passes: the policy's chain on egress, a network (through.py), and the chain on
ingress. The receiver is taken to have the mirror image of the policy: local and remote change places in its
match. The network meets every packet of the capture that its modules can have, the policy's or not.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from layer45.capture_files import Output, opening, reading, size, writing
from layer45.errors import Layer45Error
from layer45.fastpath.capture import Reader, Writer
from layer45.fastpath.chain import Chain, ClassTable
from layer45.fastpath.match import Match
from layer45.fastpath.replay import REASONS, Replay
from layer45.fastpath.worker import Worker
from layer45.ratio import with_ratios
from layer45.replay_far import far_plan
from layer45.rules.diversion import Selector
from layer45.selector import as_policy_protocol

if TYPE_CHECKING:
    from layer45.config import Settings
    from layer45.loader import ChainPlan, Plan

BATCH_RECORDS = 65536  # between two looks at signals and two calls of progress
DIRECTIONS = {"egress": False, "ingress": True}
COUNTED = ("read", "customized", "injected", "dropped", "sent_back")
SENT, ARRIVED = "(sent)", "(arrived)"  # what stands between the passes, in their summaries
SEEDS = 1 << 64

Progress = Callable[[int, float | None], None]


@dataclass(frozen=True)
class Summary:
    """What a replay did. read + injected = written + dropped, always.
    sent_back: packets that modules made for the other direction, which this capture is not.

    untouched: records copied as they were, by reason. customized: packets that went through the chain.
    engine: the engine's counters. instances: each module's counters and ratios, in the chain's order. live:
    objects left in the engine, all 0. error: what ended a damaged input early, one line; everything before it
    is in the output.
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
    sent_back: int
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


def replay_through(
    config_dir: Path | str,
    policy: str,
    network: Sequence[str],
    source: Path | str,
    target: Path | str,
    *,
    seed: int = 1,
    progress: Progress | None = None,
    reference: bool = False,
) -> list[Summary]:
    """Sends `source` out by a policy's chain, through a network, and in by the chain; one summary a pass.

    network: instances as through.read_network takes them, in the order in which packets meet them. seed: of
    the first pass; the next have the numbers after it. reference: not for the network. All else, and what is
    raised, as for `replay`. What stands between the passes is in temporary files, with nanoseconds.
    """
    from layer45.loader import load
    from layer45.through import read_network

    plan = load(Path(config_dir))
    chain, between = _chain_plan(plan, policy), read_network(network, plan.settings, plan.written.trust)
    if chain.digests is not None:
        text = f"policy {policy} changes TCP streams, and a capture cannot send again what a network loses"
        raise Layer45Error(f"--through: {text}; expected a policy for UDP alone")
    runs = [
        _Run(chain, plan.settings, seed, reference),
        _Run(between, plan.settings, (seed + 1) % SEEDS, reference=False),
        _Run(chain, plan.settings, (seed + 2) % SEEDS, reference, mirrored=True),
    ]
    with ExitStack() as stack:
        first = stack.enter_context(reading(str(source)))
        final = stack.enter_context(opening(str(source), str(target)))
        folder = stack.enter_context(TemporaryDirectory(prefix="layer45-"))
        sent, arrived = f"{folder}/sent.pcap", f"{folder}/arrived.pcap"
        outputs = [*(stack.enter_context(opening("-", each)) for each in (sent, arrived)), final]
        return _pass_by_pass(stack, runs, first, outputs, (str(source), str(target)), progress)


def _pass_by_pass(
    stack: ExitStack,
    runs: Sequence["_Run"],
    first: Reader,
    outputs: Sequence[Output],
    ends: tuple[str, str],
    progress: Progress | None,
) -> list[Summary]:
    """Each output is the next pass's input; only the last has the first input's precision."""
    names = (ends[0], SENT, ARRIVED, ends[1])
    summaries: list[Summary] = []
    reader, total = first, size(ends[0])
    for at, (run, output) in enumerate(zip(runs, outputs, strict=True)):
        direction, is_last = ("egress", "egress", "ingress")[at], at == len(runs) - 1
        writer = stack.enter_context(writing(reader, output, first.nanoseconds if is_last else True))
        error = run.through(reader, writer, direction, progress, total)
        output.publish(writer)
        done = run.summary(direction, *ends, reader, writer, error)
        summaries.append(replace(done, source=names[at], target=names[at + 1]))
        if not is_last:
            reader, total = stack.enter_context(reading(output.target)), size(output.target)
    return summaries


def _chain_plan(plan: "Plan", policy: str) -> "ChainPlan":
    for each in plan.chains:
        if each.policy.name == policy:
            return each
    known = ", ".join(sorted(each.policy.name for each in plan.chains)) or "none"
    raise Layer45Error(f"--policy: there is no active policy {policy}; expected one of: {known}")


class _Run:
    """One chain on one worker, for one capture."""

    def __init__(
        self, plan: "ChainPlan", settings: "Settings", seed: int, reference: bool, mirrored: bool = False
    ) -> None:
        from layer45.chains import build_chain

        self.plan = plan
        self.mirrored = mirrored
        self.chain = build_chain(plan, workers=1, reference=reference)
        self.worker = _worker(settings, seed, self.chain)
        far = far_plan(plan)
        self.far = far and _worker(settings, seed, build_chain(far, workers=1, reference=reference))
        self.counters: dict[str, int] = {}

    def through(
        self, reader: Reader, writer: Writer, direction: str, progress: Progress | None, total: int | None
    ) -> str | None:
        """Replays all that can be read; what is wrong with the rest, if anything."""
        match, class_id = _match(self.plan, self.mirrored), self.plan.class_id
        replay = Replay(reader, writer, self.worker, match, class_id, DIRECTIONS[direction], self.far)
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
            instances=with_ratios(self.chain.counters()["instances"], self.plan.ratios),
            live=self._live(),
            error=error and f"{source}: damaged: {error}; the packets before are in {target}",
            **{name: self.counters[name] for name in COUNTED},
        )

    def _live(self) -> dict[str, int]:
        """Of both ends."""
        ends = [each.live for each in (self.worker, self.far) if each]
        return {name: sum(each[name] for each in ends) for name in ends[0]}


def _worker(settings: "Settings", seed: int, chain: Chain) -> Worker:
    worker = Worker(
        max_flows=settings.max_flows,
        max_held=settings.max_held,
        memory_bytes=settings.module_memory_mb << 20,
        seed=seed,
        udp_idle_s=settings.udp_idle_s,
        tcp_idle_s=settings.tcp_idle_s,
    )
    worker.publish(ClassTable([chain]))
    return worker


def _match(plan: "ChainPlan", mirrored: bool) -> Match:
    select = as_policy_protocol(plan.policy.match or Selector(), plan.protocols)
    unless = plan.policy.unless
    if mirrored:
        return Match(_mirror_image(select), unless and _mirror_image(unless))
    return Match(select, unless)


def _mirror_image(select: Selector) -> Selector:
    """As the host at the other end would write it."""
    return replace(
        select,
        local=select.remote,
        remote=select.local,
        local_port=select.remote_port,
        remote_port=select.local_port,
    )


def _share(position: int, total: int | None) -> float | None:
    return min(1.0, position / total) if total and position >= 0 else None
