"""What does Reed-Solomon cost: to encode and to decode a block, with ISA-L and with our own tables?

    python -m perf.fec [--rounds 9] [--milliseconds 20] [--bytes 1200]

No root, no packets: the codec alone, in CPU time of one thread. "warm" works on one block that stays in the
nearest caches, "cold" on one after another of BLOCKS blocks, more than they hold. GB/s count source bytes.
`encode` uses the tables made at configure time; `short` makes its coefficients on the way, as for a block
that its deadline closes; `add` is symbol by symbol; `decode` recovers as many symbols as a block may lose.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from layer45.fastpath.symbol_block import Block, use_isal
from perf import record

CODES = ((10, 3), (20, 4), (32, 8))
BLOCKS = 256
TARGET_CODE = (20, 4)
TARGET_BITS_PER_S = 300e6
TARGET_CORE = 0.01
Work = Callable[[Block, int], object]


@dataclass(frozen=True)
class Case:
    """One series."""

    k: int
    m: int
    work: str
    isal: bool
    cold: bool

    @property
    def name(self) -> str:
        arithmetic, cache = "ISA-L" if self.isal else "tables", "cold" if self.cold else "warm"
        return f"({self.k},{self.m}) {self.work}, {arithmetic}, {cache}"


def works(k: int, m: int) -> dict[str, Work]:
    """What is measured, by name: each takes a block and how often."""
    kept = list(range(m, k + m))  # the first m source symbols are lost
    return {
        "encode": lambda block, rounds: block.encode(rounds),
        "short": lambda block, rounds: block.encode_short(rounds),
        "add": lambda block, rounds: block.add_all(rounds),
        "decode": lambda block, rounds: block.decode(kept, rounds),
    }


def cases(isal_too: bool) -> Iterator[Case]:
    """All with ISA-L; of our own tables only what a packet meets, in a warm cache."""
    for k, m in CODES:
        for work in works(k, m):
            for cold in (False, True) if isal_too else ():
                yield Case(k, m, work, True, cold)
        for work in ("encode", "decode"):
            yield Case(k, m, work, False, False)


def make_blocks(k: int, m: int, symbol_bytes: int) -> list[Block]:
    """BLOCKS blocks of random bytes, encoded."""
    source = random.Random(1)
    blocks = [Block(k, m, symbol_bytes) for _ in range(BLOCKS)]
    for block in blocks:
        for position in range(k):
            block.put(position, source.randbytes(symbol_bytes))
        block.encode()
    return blocks


def us_per_block(case: Case, blocks: list[Block], milliseconds: float) -> float:
    """CPU time of one block, over at least so many milliseconds."""
    work = works(case.k, case.m)[case.work]
    rounds, spent = 1, 0.0
    use_isal(case.isal)
    while True:
        began = time.thread_time()
        for block in blocks if case.cold else blocks[:1]:
            work(block, 1 if case.cold else rounds)
        spent += time.thread_time() - began
        if case.cold:
            if spent * 1e3 >= milliseconds:
                return spent * 1e6 / (rounds * BLOCKS)
            rounds += 1
        elif spent * 1e3 >= milliseconds:
            return spent * 1e6 / rounds
        else:
            rounds, spent = rounds * 2, 0.0


def intact(block: Block, k: int) -> bool:
    """Whether what the decoder has put in place still encodes to the same repair symbols."""
    before = [block.get(k + repair) for repair in range(block.m)]
    block.encode()
    return before == [block.get(k + repair) for repair in range(block.m)]


def measure(rounds: int, milliseconds: float, symbol_bytes: int) -> dict[Case, list[float]]:
    """Microseconds a block by case, rounds interleaved."""
    blocks = {code: make_blocks(*code, symbol_bytes) for code in CODES}
    samples: dict[Case, list[float]] = {case: [] for case in cases(use_isal(True))}
    for _ in range(rounds):
        for case, found in samples.items():
            found.append(us_per_block(case, blocks[case.k, case.m], milliseconds))
    use_isal(True)
    if not all(intact(block, code[0]) for code in CODES for block in blocks[code]):
        sys.exit("perf.fec: a block was not recovered, so no figure counts")
    return samples


def core_at_target(case: Case, us: float, symbol_bytes: int) -> float:
    """The part of a core that the target's rate takes."""
    return TARGET_BITS_PER_S / (8 * case.k * symbol_bytes) * us / 1e6


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(prog="perf.fec", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--milliseconds", type=float, default=20, help="of CPU time, a sample")
    parser.add_argument("--bytes", type=int, default=1200)
    options = parser.parse_args()
    samples = measure(options.rounds, options.milliseconds, options.bytes)
    record.table({case.name: found for case, found in samples.items()}, "µs/block")
    gigabytes = {
        case.name: [case.k * options.bytes / us / 1e3 for us in found] for case, found in samples.items()
    }
    cores = {
        case.name: core_at_target(case, statistics.median(found), options.bytes)
        for case, found in samples.items()
        if (case.k, case.m) == TARGET_CODE and case.work in ("encode", "short")
    }
    for name, core in cores.items():
        verdict = "met" if core < TARGET_CORE else "MISSED"
        print(f"{name}: {100 * core:.2f} % of a core at 300 Mbit/s; target under 1 %: {verdict}")
    record.write(
        "fec",
        "CPU time to encode and decode a Reed-Solomon block",
        {
            "symbol_bytes": options.bytes,
            "target_core_at_300_mbit": TARGET_CORE,
            "core_at_300_mbit": cores,
            "us_per_block": {case.name: record.summary(found) for case, found in samples.items()},
            "gb_per_s": {name: record.summary(found) for name, found in gigabytes.items()},
            "samples": {case.name: found for case, found in samples.items()},
        },
    )
    shown = {name: found for name, found in gigabytes.items() if "code, " in name and "cold" not in name}
    record.plot("fec", "Reed-Solomon, 1200-byte symbols, one core", "GB/s of source symbols", shown)


if __name__ == "__main__":
    main()
