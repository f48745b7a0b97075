"""Policies as `layer45 status --json` has them."""

from collections.abc import Callable, Mapping
from typing import Any

from layer45.loader import ChainPlan, Plan
from layer45.old_versions import describe
from layer45.packet_path import PacketPath
from layer45.policy import Policy
from layer45.rules.kernel_chain import NoKernel

NO_REASON = NoKernel()
POLICY_HELP = {
    "packets": "packets of the policy, both directions",
    "bytes": "their IP lengths as the engine got them, in bytes",
    "flows": "flows that it has now",
    "egress_packets": "of the packets, sent by this host",
    "egress_bytes": "their bytes",
    "ingress_packets": "of the packets, for this host",
    "ingress_bytes": "their bytes",
    "egress_failed": "packets sent that a module failed: what became of them, on_failure said",
    "ingress_failed": "packets for this host, so",
    "begun_sent": "packets sent in flows that this host began",
    "begun_failed": "of them, those that a module failed: error_threshold is about these",
    "bypassed": "packets that went round the chain, for the policy is disabled: so, too",
}


def policy_states(
    plan: Plan,
    standing: Callable[[str], dict[str, Any]],
    seen: Mapping[str, Any],
    no_kernel: NoKernel = NO_REASON,
) -> list[dict[str, Any]]:
    """All policies, those in effect first. standing: of each. seen: Engine.stats of the chains, by name.

    no_kernel: why chains do not run in the kernel.
    """
    chains = {chain.policy.name: chain for chain in plan.newest}
    names = (*chains, *(name for name in plan.policies if name not in chains))
    return [
        {
            **_policy_state(plan.policies[name], standing(name), chains.get(name), seen.get(name, {})),
            **_path(chains.get(name), no_kernel),
            "versions": describe(plan, name, seen),
        }
        for name in names
    ]


def _path(chain: ChainPlan | None, no_kernel: NoKernel) -> dict[str, Any]:
    """The one that its packets take; why not the other."""
    reason = no_kernel.reason(chain.kernel) if chain else ""
    return {"path": path_of(chain, no_kernel) if chain else None, "path_reason": reason}


def path_of(chain: ChainPlan, no_kernel: NoKernel) -> PacketPath:
    """The one that the packets of a chain take."""
    return chain.engine_path if no_kernel.reason(chain.kernel) else chain.path


def _policy_state(
    policy: Policy, standing: dict[str, Any], chain: ChainPlan | None, seen: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "name": policy.name,
        "summary": policy.summary,
        **standing,
        "class": chain.class_id if chain else None,
        "queues": chain.queue.ends if chain else None,
        "on_failure": policy.on_failure,
        "chain": [instance.module.manifest.name for instance in chain.instances] if chain else [],
        "packets": seen.get("packets", 0),
        "bytes": seen.get("bytes", 0),
    }
