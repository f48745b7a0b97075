"""Writes the inputs that fuzzing begins with: real runs, and each kind of trouble once.

    python tests/fuzz/fec_ingress/seeds.py FOLDER
In corpus/ there are also found_*, what a fuzzer came upon since (run.sh -set_cover_merge=1 -use_counters=0
keeps the fewest files that reach as much), and broke_*, what once broke something.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

NAMES = [  # in the order of fec_ingress.pyx
    "send", "deliver", "skip", "back", "pick", "wait", "alter", "flip", "cut", "raw", "forge", "flood",
    "starve", "restart", "flow", "odd", "close", "reply", "answer",
]  # fmt: skip
CODES = {name: code for code, name in enumerate(NAMES)}
CONFIGURATIONS = 9
SMALL, INTERLEAVED, LARGE, IN_ORDER, SECRETIVE, ADAPTIVE, APART = 0, 2, 3, 5, 6, 7, 8
MS_33, MS_270, S_2 = 0x0A, 0x0D, 0x0F | 0x10
EMPTY, SHORT, LONG, LARGEST = 0, 100, 200, 255
Run = list[int]


def do(name: str, *operands: int) -> Run:
    return [CODES[name], *(each & 0xFF for each in operands)]


def all_of(runs: Iterable[Run]) -> Run:
    return [each for run in runs for each in run]


def stream(count: int, code: int = SHORT) -> Run:
    """Sent: so many, and time until their block is closed."""
    return do("send", count - 1, code) + do("wait", MS_33)


def clean(count: int = 24, code: int = SHORT) -> Run:
    return stream(count, code) + do("deliver", 63) + do("wait", MS_270)


def lossy(code: int = SHORT) -> Run:
    return stream(32, code) + (do("deliver", 2) + do("skip", 0)) * 12 + do("wait", MS_270)


def reordered() -> Run:
    return stream(32) + (do("pick", 3) + do("deliver", 1) + do("pick", 8)) * 6 + do("deliver", 63)


def duplicated() -> Run:
    again = do("back", 40) + do("deliver", 63) + do("wait", MS_270)
    return clean() + again + do("back", 255) + do("deliver", 63)


def restarted(code: int) -> Run:
    """code: where the new numbers begin, see fec_ingress.pyx."""
    return clean() + do("restart", code) + lossy() + do("back", 60) + do("deliver", 20)


def altered() -> Run:
    one = do("skip", 1)
    ids = [do("alter", which, 3, 1, 5) + one for which in range(16)]
    flips = [do("flip", 0, at, 0x10, mended) + one for at in (0, 50, 101, 104) for mended in (0, 1)]
    cuts = [do("cut", 2, how) + one for how in range(8)]
    rest = do("deliver", 40) + do("wait", MS_270)
    return stream(32) + do("deliver", 3) + all_of(ids + flips + cuts) + rest


def strange() -> Run:
    odd = all_of(do("odd", how) + do("skip", 0) for how in range(8))
    return clean() + do("raw", 0) + do("raw", 6, 0, 0, 0, 0, 0, 4) + stream(16) + odd + do("deliver", 63)


def flooded(step: int, code: int = SHORT) -> Run:
    """step: of SBN (low 3 bits) and ESI."""
    return clean() + do("flood", 1, 0, 200, code, 1, step, 120) + lossy() + do("forge", 2, 5, 4, code, 1)


def starved() -> Run:
    return do("starve", 12) + lossy() + do("starve", 3) + lossy() + do("starve", 255) + lossy()


def many_flows() -> Run:
    return stream(32) + all_of(do("flow", at % 3) + do("deliver", 3) + do("skip", 0) for at in range(9))


def both_ways() -> Run:
    reply = do("reply", LONG) + do("wait", MS_270) + do("answer", 255, 0)
    return lossy() + reply + lossy() + do("answer", 12, 1)


def closed() -> Run:
    return lossy() + do("close") + lossy() + do("wait", S_2) + lossy()


RUNS: dict[str, tuple[Run, tuple[int, ...]]] = {
    "clean": (clean(), tuple(range(CONFIGURATIONS))),
    "lossy": (lossy(), tuple(range(CONFIGURATIONS))),
    "empty": (lossy(EMPTY), (SMALL, IN_ORDER, APART)),
    "largest": (lossy(LARGEST) + lossy(LARGEST - 5), (SMALL, LARGE)),
    "reordered": (reordered(), (SMALL, INTERLEAVED, IN_ORDER)),
    "duplicated": (duplicated(), (SMALL, IN_ORDER, APART)),
    "wrapped": (restarted(4 * 3 + 1), (SMALL, INTERLEAVED, IN_ORDER)),
    "restarted": (restarted(0), (SMALL, IN_ORDER, APART)),
    "restarted_far": (restarted(4 * 9 + 2), (SMALL, IN_ORDER, APART)),
    "altered": (altered(), (SMALL, IN_ORDER, APART)),
    "strange": (strange(), (SMALL, SECRETIVE)),
    "flooded_blocks": (flooded(1), (SMALL, SECRETIVE)),
    "flooded_symbols": (flooded(8), (SMALL, LARGE)),
    "flooded_far": (flooded(7), (SMALL, IN_ORDER, APART)),
    "starved": (starved(), (SMALL, IN_ORDER, APART)),
    "many_flows": (many_flows(), (SMALL, IN_ORDER, APART)),
    "both_ways": (both_ways(), (SMALL, ADAPTIVE)),
    "closed": (closed(), (SMALL, IN_ORDER, APART)),
}


def main(folder: Path) -> None:
    for name, (content, configurations) in RUNS.items():
        for at in configurations:
            (folder / f"{name}_{at}").write_bytes(bytes([at, *content]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
