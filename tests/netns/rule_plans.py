"""Plans, and two ways to see what they divert: real queues (iptables), counters (nft without its queue)."""

import contextlib
import json
import re
from collections.abc import Collection, Iterator
from ipaddress import ip_network

import pytest

from layer45.rules import iptables_live, nft
from layer45.rules.command import run
from layer45.rules.diversion import Diversion, MarkLayout, Network, QueueGroup, RulePlan, Selector

from .queue_recorder import Recorder, recording
from .topology import Host

MARKS = MarkLayout(0x10FF, 0x2000)
FIRST_QUEUE = 4500


def networks(*texts: str) -> tuple[Network, ...]:
    """CIDRs of both families."""
    return tuple(map(ip_network, texts))


def plan(*selectors: Selector | tuple[Selector, Selector], owner: str = "test", bypass: bool = True,
         workers: int = 1, renumbers: Collection[int] = ()) -> RulePlan:  # fmt: skip
    """Policies p1, p2, … of classes 1, 2, …, first first; a pair is (select, unless). renumbers: which."""
    queues = QueueGroup(FIRST_QUEUE, workers, bypass)
    pairs = [s if isinstance(s, tuple) else (s, None) for s in selectors]
    return RulePlan(
        owner,
        MARKS,
        tuple(Diversion(f"p{i}", i, s, u, queues, i in renumbers) for i, (s, u) in enumerate(pairs, 1)),
    )


class NftCounters:
    """Counts by class and direction in place of the queue that this kernel's nft may lack."""

    def __init__(self, host: Host, wanted: RulePlan) -> None:
        self.host = host
        text = nft.render_text(wanted)
        counters = "".join(
            f"\tcounter {side}_{d.class_id} {{ }}\n" for d in wanted.diversions for side in ("in", "out")
        )
        text = text.replace("{\n", "{\n" + counters, 1)
        text = re.sub(r"(chain hit_(\d+) \{\n(?:\t\t(?:meta|ct).*\n)*)\t\tqueue.*\n", self._counted, text)
        assert "queue" not in text
        with host.entered():
            run(["nft", "-f", "-"], text)

    @staticmethod
    def _counted(found: re.Match[str]) -> str:
        sides = (("in", "iif"), ("out", "oif"))
        rules = "".join(f'\t\tmeta {way} > 0 counter name "{side}_{found[2]}"\n' for side, way in sides)
        return f"{found[1]}{rules}\t\taccept\n"

    def counts(self) -> dict[str, int]:
        """Packets by direction and class, as Recorder has them."""
        listed = json.loads(self.host.run(["nft", "--json", "list", "counters"]).stdout)["nftables"]
        named = [entry["counter"] for entry in listed if "counter" in entry]
        sides = ((c["name"].split("_"), c["packets"]) for c in named if c["packets"])
        return {f"{side} {MARKS.spread(int(number)):#x}": packets for (side, number), packets in sides}


BACKENDS = ["iptables", "nft_with_counters_for_queues"]


@contextlib.contextmanager
def diverting(host: Host, backend: str, wanted: RulePlan) -> Iterator[Recorder | NftCounters]:
    """The plan's rules in the host; yields what counts the packets they divert."""
    if backend != "iptables":
        yield NftCounters(host, wanted)
        return
    workers = max((d.queues.workers for d in wanted.diversions), default=0)
    with recording(host, range(FIRST_QUEUE, FIRST_QUEUE + workers)) as recorder:
        with host.entered():
            iptables_live.install(wanted)
        yield recorder


every_backend = pytest.mark.parametrize("backend", BACKENDS)
