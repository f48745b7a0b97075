"""The far end of a replay: the peer of a policy's host, for TCP connections that need its agreement."""

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layer45.loader import ChainPlan, InstancePlan

OTHER = {"egress": "ingress", "ingress": "egress"}


def far_plan(plan: "ChainPlan") -> "ChainPlan | None":
    """The peer's chain: the mirror image of ours, less what nobody has to undo. None: there is no far end.

    Of parameters that are a host's own, the peer is taken to have what we say of it (`peer` in the manifest),
    or else the same as we.
    """
    if plan.digests is None:
        return None
    egress, ingress = plan.digests
    instances = tuple(_mirror_image(each) for each in plan.instances if _is_shared(each))
    return replace(plan, instances=instances, digests=(ingress, egress))


def _is_shared(instance: "InstancePlan") -> bool:
    return instance.agreed or instance.module.manifest.inverse == "self"


def _mirror_image(instance: "InstancePlan") -> "InstancePlan":
    directions = frozenset(OTHER[each] for each in instance.directions)
    return replace(instance, directions=directions, values=_values(instance))


def _values(instance: "InstancePlan") -> dict[str, object]:
    values = dict(instance.values)
    for name, parameter in instance.module.manifest.parameters.items():
        said = instance.values.get(parameter.peer)
        if isinstance(said, bytes) and parameter.fits(said):
            values[name] = said
    return values
