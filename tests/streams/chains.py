"""Chains that the tests of this folder run, each as the left host sees it, and what they need."""

from dataclasses import dataclass

from .layouts import Layout, Masked, Periodic, Primes, Roots, Scattered, Shifted
from .reference import Stage

TAG = Periodic(32, 1000)


@dataclass(frozen=True)
class Chain:
    """mss: of both ends. step: how far a stream may go from
    one packet to the next (0: not far)."""

    stages: tuple[Stage, ...]
    mss: int = 536
    step: int = 1 << 28

    def wire_bytes(self, count: int) -> int:
        """What stream bytes may be on the wire, at most."""
        out = into = count
        for stage in self.stages:
            out, into = grown(stage.out, out), grown(stage.into, into)
        return max(out, into)

    @property
    def cuts(self) -> bool:
        """Whether both hosts edit each packet: what the kernel acknowledges may be the same on both sides."""
        idle = Stage()
        return any(each.out != idle.out for each in self.stages) and any(
            each.into != idle.into for each in self.stages
        )

    def mirrored(self) -> tuple[Stage, ...]:
        return tuple(stage.mirrored() for stage in self.stages)


def grown(layout: Layout, count: int) -> int:
    growth, every = layout.growth
    return count + growth * -(-count // every) if every else count


def both(layout: Layout) -> Stage:
    return Stage(layout, layout)


CHAINS = {
    "nothing": Chain((Stage(),)),
    "tag": Chain((both(TAG),)),
    "one in one": Chain((both(Periodic(1, 1)),)),
    "more than the stream": Chain((both(Periodic(40, 3)),), mss=900, step=1 << 26),
    "longer than a segment": Chain((both(Periodic(9, 3000)),)),
    "runs longer than segments": Chain((both(Periodic(700, 250)),), mss=1460),
    "odd": Chain((both(Periodic(7, 13)),)),
    "one way": Chain((Stage(out=Periodic(5, 64)),)),
    "other way": Chain((Stage(into=Periodic(5, 64)),)),
    "two ways": Chain((Stage(Periodic(3, 50), Periodic(17, 41)),)),
    "scattered": Chain((both(Scattered(4, 100)),)),
    "roots": Chain((both(Roots(3)),)),
    "primes": Chain((both(Primes(2)),), mss=900, step=0),
    "in place": Chain((both(Masked()),)),
    "in place, two keys": Chain((Stage(Masked(1), Masked(2)),)),
    "inserted and changed": Chain((both(Shifted(4, 64)),)),
    "two stages": Chain((both(Periodic(3, 64)), both(Periodic(7, 100)))),
    "two unlike stages": Chain(
        (Stage(Scattered(5, 90), Masked()), Stage(Shifted(2, 33), Roots(1)), both(Masked(9)))
    ),
}
