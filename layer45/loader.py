"""layer45.toml, policies and modules -> Plan: chains, classes, queues and what the rules must divert.

Needs neither root nor the kernel. Every problem of every file is reported at once, and then there is no Plan.

Who has a policy: sockets that its `match` selects, and programs started by `layer45 exec`, which stand in
the cgroup <cgroup_root>/<policy>. A policy without the key `match` has only the latter, for the protocols
its chain can carry; `match = {}` selects any socket. For exec, the cgroup takes the place of the match's
owner keys (user, group, cgroup); its other keys still hold, and an `unless` with an owner key does not
concern such programs. The diversions for exec come before all others, since there the operator named the
policy. They are there only for policies with which a program has been started (Plan.executed), since most
never are. The daemon creates exec_cgroup() of those before it applies the rules.

A deprecated policy has the flows that it has, before any other policy is asked. A revoked one has none; but
where it is closed, the packets of those it had are dropped: it keeps its chain and its queue for what is in
there, so that none of them passes meanwhile.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2s
from pathlib import Path

from layer45.before import Before, inherited
from layer45.chain_properties import InstancePlan, canonical, cautions
from layer45.composition import Composed, check_chain, compose
from layer45.config import Settings, read_settings
from layer45.errors import ConfigError, Layer45Error
from layer45.inheritance import Inheritance
from layer45.life_cycle import State
from layer45.load_list import loaded_policies
from layer45.modulefolder import ModuleIndex, find_modules
from layer45.numbering import QueueKind, QueuePlan, number_classes, number_queues
from layer45.packet_path import PacketPath, kernel_chain, packet_path
from layer45.policy import Policy, read_policies
from layer45.problems import Place, Problems
from layer45.ratio import Ratios
from layer45.rivals import check_priorities, warn_of_shadows
from layer45.rules.diversion import Diversion, Flows, QueueGroup, RulePlan, Selector
from layer45.rules.kernel_chain import KernelChain
from layer45.selector import PROTOCOLS, as_policy_protocol
from layer45.trust import Trust, read_trust
from layer45.versions import Version, succeed

__all__ = [
    "ChainPlan",
    "InstancePlan",
    "Plan",
    "QueuePlan",
    "chain_plan",
    "exec_cgroup",
    "load",
    "load_code",
    "with_exec",
    "with_states",
]

KINDS_WITH_CONNECTIONS = 4  # of queues, each with workers of its own, whose connections are in the one map
FLOWS: Mapping[State, Flows] = {"active": "any", "deprecated": "kept", "revoked": "ended"}


@dataclass(frozen=True)
class ChainPlan:
    """One policy in effect, ready for the engine. Growth in bytes, worst case on egress.

    text: equal texts mean equal chains, which a reload may keep. protocols: those the policy diverts. flows:
    which of them it gets. replay_only: why the chain does not work fully on live packets. name: of the class;
    the policy's, or that of an old version, see versions.py. lets_go: the rest of a flow stays in the kernel,
    once the chain is done with it. kernel: the chain, if the kernel can run it.
    """

    policy: Policy
    class_id: int
    instances: tuple[InstancePlan, ...]
    growth_front: int
    growth_back: int
    flow_state_bytes: int
    reads: str
    gso: bool
    queue: QueuePlan
    text: str
    protocols: tuple[str, ...] = PROTOCOLS
    digests: tuple[int, int] | None = None
    replay_only: tuple[str, ...] = ()
    flows: Flows = "any"
    name: str = ""
    lets_go: bool = False
    kernel: KernelChain | None = None

    @property
    def path(self) -> PacketPath:
        """The way of the packets, on a host that can do it: see packet_path.py."""
        return "kernel" if self.kernel else self.engine_path

    @property
    def engine_path(self) -> PacketPath:
        """The way of those that the kernel leaves to the engine."""
        return "copies" if self.queue.copies else "queue"

    @property
    def is_old(self) -> bool:
        """Whether new flows get another version of the policy."""
        return self.name != self.policy.name

    @property
    def ratios(self) -> dict[str, Ratios]:
        """Of each module."""
        return {each.module.name: each.module.manifest.ratios for each in self.instances}


@dataclass(frozen=True)
class Written:
    """What the files of a configuration directory say, read at one time. remarks: about modules."""

    directory: Path
    settings: Settings
    place: Place  # of the settings
    policies: Mapping[str, Policy]
    composed: tuple[Composed, ...]
    remarks: tuple[str, ...]
    trust: Trust


@dataclass(frozen=True)
class Plan:
    """All that one daemon runs.

    chains: highest priority first, then old versions. classes: numbers given so far, by name. policies: all,
    standby ones too, as written. states: those the plan is for. versions: those of the chains. executed: the
    policies that have rules for `layer45 exec`.
    """

    written: Written
    states: Mapping[str, State]
    executed: frozenset[str]
    settings: Settings
    chains: tuple[ChainPlan, ...]
    queues: tuple[QueuePlan, ...]
    rules: RulePlan
    warnings: tuple[str, ...]
    classes: Mapping[str, int] = field(default_factory=dict)
    policies: Mapping[str, Policy] = field(default_factory=dict)
    versions: tuple[Version, ...] = ()

    @property
    def newest(self) -> list[ChainPlan]:
        """The chains that are not those of old versions: one for each policy in effect."""
        return [chain for chain in self.chains if not chain.is_old]


def load(directory: Path, previous: Plan | Inheritance | None = None) -> Plan:
    """The plan of a configuration directory. previous: what ran, or runs; numbers stay as they are there.

    For `layer45 exec`, the policies have rules that a plan before had, without one: all.

    Raises ConfigError with every problem.
    """
    problems = Problems()
    settings, place = read_settings(directory, problems)
    policies = read_policies(directory, problems)
    trust = read_trust(directory, problems)
    index = find_modules(settings, trust, place, problems)
    policies.update(loaded_policies(settings, place, index, policies, problems))
    composed = tuple(compose(policies, index, problems))
    written = Written(directory, settings, place, policies, composed, tuple(_remarks(index)), trust)
    before = inherited(previous, index) if isinstance(previous, Inheritance) else _before(previous)
    return _plan(written, {name: each.state for name, each in policies.items()}, before, problems)


def _before(plan: Plan | None) -> Before:
    if plan is None:
        return Before()
    return Before(plan.classes, plan.queues, (), plan.versions, _numbers(plan.settings), (), plan.executed)


def without_versions(plan: Plan, names: Iterable[str]) -> Plan:
    """The plan without these old versions."""
    before = _before(plan)
    left = [each for each in plan.versions if each.name not in set(names)]
    return _plan(plan.written, plan.states, replace(before, versions=left), Problems())


def with_states(plan: Plan, states: Mapping[str, State]) -> Plan:
    """A plan of what was read for this one, for other states of its policies; numbers stay as they are.

    Raises ConfigError with every problem: what may stand by may not be fit to run.
    """
    problems = Problems()
    for composed in plan.written.composed:
        if _runs(composed, states):
            check_chain(composed, problems)
    return _plan(plan.written, states, _before(plan), problems)


def with_exec(plan: Plan, policies: Collection[str]) -> Plan:
    """The same, but with rules for `layer45 exec` for these policies."""
    executed = frozenset(policies)
    return replace(plan, executed=executed, rules=_rules(plan.settings, plan.chains, executed))


def _plan(written: Written, states: Mapping[str, State], before: Before, problems: Problems) -> Plan:
    """Raises ConfigError, also with the problems found so far."""
    settings, place = written.settings, written.place
    running = sorted(
        (each for each in written.composed if _runs(each, states)),
        key=lambda each: (-each.policy.priority, each.policy.name),
    )
    active = [each.policy for each in running if states[each.policy.name] == "active"]
    check_priorities(active, problems)
    after = succeed(running, written.policies, before.versions, before.classes, settings.marks.capacity)
    classes = _classes([each.name for each in after.versions], after.classes, settings, place, problems)
    queues = _queues([each.composed for each in after.versions], settings, before, place, problems)
    problems.raise_any()
    chains = tuple(
        replace(
            chain_plan(each.composed, classes[each.name], queues[_kind(each.composed)]),
            flows=_flows(states[each.policy], each),
            name=each.name,
        )
        for each in after.versions
    )
    executed = frozenset(written.policies) if before.executed is None else before.executed
    return Plan(
        written=written,
        states=states,
        executed=executed,
        settings=settings,
        chains=chains,
        queues=tuple(sorted(queues.values(), key=lambda group: group.first)),
        rules=_rules(settings, chains, executed),
        warnings=(*_warnings(written, running, active), *before.remarks, *after.remarks),
        classes=classes,
        policies=written.policies,
        versions=after.versions,
    )


def _flows(state: State, version: Version) -> Flows:
    return "kept" if version.is_old and state == "active" else FLOWS[state]


def _runs(composed: Composed, states: Mapping[str, State]) -> bool:
    """Whether the policy has a chain and rules."""
    state = states[composed.policy.name]
    return state in ("active", "deprecated") or (
        state == "revoked" and composed.policy.on_failure == "closed"
    )


def load_code(plan: Plan) -> None:
    """Loads the code of every module in the plan's chains. ConfigError: all that cannot be loaded."""
    problems = []
    for module in {
        id(each.module): each.module for chain in plan.chains for each in chain.instances
    }.values():
        try:
            module.load_code()
        except Layer45Error as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(sorted(problems))


def exec_cgroup(settings: Settings, policy: str) -> str:
    """Where programs started by `layer45 exec` stand: a path below the cgroup v2 mount, no leading slash."""
    return f"{settings.cgroup_root}/{policy}"


def _classes(
    names: Sequence[str], known: Mapping[str, int], settings: Settings, place: Place, problems: Problems
) -> dict[str, int]:
    try:
        return number_classes(names, known, settings.marks.capacity)
    except ValueError as error:
        bits = settings.marks.class_mask.bit_count()
        text = f"has {bits} class bits, which number {settings.marks.capacity} policies; {error}"
        problems.add(place.child("mark_mask"), text)
        return {}


def _queues(
    running: Sequence[Composed], settings: Settings, before: Before, place: Place, problems: Problems
) -> dict[QueueKind, QueuePlan]:
    first, workers = settings.first_queue, settings.workers
    same = before.numbering == (first, workers)
    try:
        return number_queues(
            [_kind(each) for each in running], first, workers, before.queues, same, before.taken
        )
    except ValueError as error:
        problems.add(place.child("first_queue"), str(error))
        return {}


def _numbers(settings: Settings) -> tuple[int, int]:
    return settings.first_queue, settings.workers


def _kind(composed: Composed) -> QueueKind:
    properties, on_failure = composed.properties, composed.policy.on_failure
    copies = packet_path(composed.policy, composed.instances) == "copies"
    return QueueKind(
        properties.copy_bytes, properties.gso or copies, on_failure, properties.renumbers, copies
    )


def chain_plan(composed: Composed, class_id: int, queue: QueuePlan) -> ChainPlan:
    """A composed policy with the numbers it was given."""
    policy, properties = composed.policy, composed.properties
    settings = {"on_failure": policy.on_failure, "mtu": policy.mtu, "protocols": "+".join(composed.protocols)}
    text = canonical(composed.instances, settings)
    kernel = kernel_chain(policy, composed.instances, composed.protocols, properties, text)
    return ChainPlan(
        policy=policy,
        class_id=class_id,
        instances=composed.instances,
        growth_front=properties.growth_front,
        growth_back=properties.growth_back,
        flow_state_bytes=properties.flow_state_bytes,
        reads=properties.reads,
        gso=queue.gso,
        queue=queue,
        text=f"{text}\npath=kernel" if kernel else text,  # on another path, all is counted anew
        protocols=composed.protocols,
        digests=properties.digests,
        replay_only=tuple(text for _, text in cautions(composed.links)),
        name=policy.name,
        lets_go=properties.lets_go,
        kernel=kernel,
    )


def _rules(settings: Settings, chains: Sequence[ChainPlan], executed: Collection[str]) -> RulePlan:
    """Policies that only keep what they have come first: no other has those flows."""
    by_exec = [_exec_diversion(settings, chain) for chain in chains if chain.policy.name in executed]
    by_match = [
        _diversion(chain, chain.policy.match, chain.policy.unless)
        for chain in chains
        if chain.policy.match is not None
    ]
    diversions = sorted((*by_exec, *by_match), key=lambda each: each.flows == "any")
    return RulePlan(
        owner_name(settings),
        settings.marks,
        tuple(diversions),
        connections=settings.max_flows * settings.workers * KINDS_WITH_CONNECTIONS,
        renumbers=any(chain.queue.renumbers for chain in chains),
    )


def _exec_diversion(settings: Settings, chain: ChainPlan) -> Diversion:
    match, unless = chain.policy.match or Selector(), chain.policy.unless
    cgroup = (exec_cgroup(settings, chain.policy.name),)
    select = as_policy_protocol(replace(match, user=(), group=(), program=(), cgroup=cgroup), chain.protocols)
    return _diversion(chain, select, None if unless and unless.owned else unless)


def _diversion(chain: ChainPlan, select: Selector, unless: Selector | None) -> Diversion:
    queue, flows = chain.queue, chain.flows
    group = QueueGroup(queue.first, queue.workers, queue.on_failure == "open", queue.copies)
    renumbers = queue.renumbers and flows != "ended"  # those that it has customized are closed
    lets_go = blake2s(chain.text.encode(), digest_size=8).hexdigest() if chain.lets_go else ""
    kernel = chain.kernel
    return Diversion(chain.name, chain.class_id, select, unless, group, renumbers, flows, lets_go, kernel)


def owner_name(settings: Settings) -> str:
    """A short name for this daemon's rules: "main", or one derived from another control socket."""
    if settings.control_socket == Settings.control_socket:
        return "main"
    return "l45_" + blake2s(settings.control_socket.encode(), digest_size=3).hexdigest()


def _warnings(written: Written, running: Sequence[Composed], active: Sequence[Policy]) -> list[str]:
    found = Problems()
    if not written.policies:
        found.add_file(written.directory / "policies", "no policy; nothing will be diverted")
    for composed in running:
        for place, text in cautions(composed.links):
            found.add(place, text)
    warn_of_shadows(active, found)
    return [*found.sorted_lines(), *written.remarks]


def _remarks(index: ModuleIndex) -> list[str]:
    broken = [line for each in index.broken.values() for line in each.sorted_lines()]
    return [*broken, *index.hidden]
