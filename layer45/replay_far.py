"""The far end of a replay: the peer of a policy's host, for TCP connections that need its agreement."""

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layer45.loader import ChainPlan, InstancePlan

OTHER = {"egress": "ingress", "ingress": "egress"}


def far_plan(plan: "ChainPlan") -> "ChainPlan | None":
    """The peer's chain: the mirror image of ours, less what nobody has to undo. None: there is no far end.

    Parameters that are a host's own are taken to be the same at both.
    """
    if plan.digests is None:
        return None
    egress, ingress = plan.digests
    instances = tuple(_mirror_image(each) for each in plan.instances if _is_shared(each))
    return replace(plan, instances=instances, digests=(ingress, egress))


def _is_shared(instance: "InstancePlan") -> bool:
    return instance.agreed or instance.module.manifest.inverse == "self"


def _mirror_image(instance: "InstancePlan") -> "InstancePlan":
    return replace(instance, directions=frozenset(OTHER[each] for each in instance.directions))
