"""Plans as the engine's chains, and what these count of their modules' failures."""

from layer45.errors import Layer45Error
from layer45.failures import ChainKey, Faults, Tally
from layer45.fastpath.bridge import last_fault, python_instance
from layer45.fastpath.chain import Chain, Choice, InstanceSpec, Refused
from layer45.loader import ChainPlan, InstancePlan


def build_chain(plan: ChainPlan, workers: int, reference: bool = False) -> Chain:
    """A policy's chain, ready to be published.

    reference: the modules' plain-Python references stand in for their compiled code.
    Raises Layer45Error when a module's code can't be loaded or refuses its parameters.
    """
    try:
        return Chain(
            plan.class_id,
            plan.policy.name,
            _specs(plan, reference),
            transports=plan.protocols,
            workers=workers,
            whole_payload=plan.reads == "payload",
            fail_closed=plan.policy.on_failure == "closed",
            signal_mtu=plan.policy.mtu == "signal",
            negotiates=plan.digests,
            header_growth=sum(each.header_growth for each in plan.instances),
            emits_bytes=sum(each.module.manifest.emits_bytes for each in plan.instances),
            makes=any("egress" in each.module.manifest.emits for each in plan.instances),
            growth_bytes=plan.growth_front + plan.growth_back,
            lets_go=plan.lets_go,
            looks_only=all(each.module.manifest.looks_only for each in plan.instances),
        )
    except Refused as error:
        raise Layer45Error(_located(plan, error.place, str(error))) from error
    except MemoryError as error:
        raise Layer45Error(f"policy {plan.policy.name}: no memory for its chain") from error


def _specs(plan: ChainPlan, reference: bool) -> list[InstanceSpec]:
    """Raises Refused for an instance that cannot be made."""
    made = []
    for place, each in enumerate(plan.instances):
        try:
            made.append(instance_spec(each, reference))
        except ValueError as error:
            raise Refused(place, f"policy {plan.policy.name}: {error}") from error
    return made


def _located(plan: ChainPlan, at: int, text: str) -> str:
    """In front of a text, where the instance is written: that names the policy, too."""
    place = plan.instances[at].place
    return f"{place}: {place.key}: {text.removeprefix(f'policy {plan.policy.name}: ')}" if place else text


def instance_spec(plan: InstancePlan, reference: bool = False) -> InstanceSpec:
    """What a chain is made of. reference, and what is raised: as for build_chain."""
    module = plan.module
    manifest = module.manifest
    counters = tuple(manifest.counters)
    if manifest.language == "python" or reference:
        return python_instance(module.name, _class_of(plan), plan.values, counters, plan.directions)
    module.load_code()
    values = [(name, _engine_value(plan, name)) for name in manifest.parameters]
    return InstanceSpec(module.name, module.ops, values, counters, plan.directions, growth=plan.stream_growth)


def _class_of(plan: InstancePlan) -> type:
    module = plan.module
    if module.manifest.language != "python":
        return module.load_reference()
    module.load_code()
    assert module.python_class is not None
    return module.python_class


def _engine_value(plan: InstancePlan, name: str) -> object:
    """A choice is given to compiled code with its position in the manifest's list."""
    parameter, value = plan.module.manifest.parameters[name], plan.values[name]
    if parameter.type == "choice":
        return Choice(value, parameter.choices.index(str(value)))
    return value


def tally(key: ChainKey, chain: Chain) -> Tally:
    """What a chain has counted of its failures."""
    counters = chain.counters()
    packets, failed = (
        counters[f"egress_{name}"] + counters[f"ingress_{name}"] for name in ("packets", "failed")
    )
    faults = [
        Faults(module, place, **counted, said=last_fault(owner))
        for place, (module, counted, owner) in enumerate(
            zip(chain.modules, chain.faults(), chain.instance_owners, strict=True), 1
        )
    ]
    return Tally(
        chain.policy,
        key,
        begun=(counters["begun_sent"], counters["begun_failed"]),
        others=(packets - counters["begun_sent"], failed - counters["begun_failed"]),
        faults=tuple(faults),
        on_failure="closed" if chain.fail_closed else "open",
        agrees=chain.negotiates,
    )
