"""What got slower since the figures were stored? The regression guard: ratios only, in under two minutes.

    python -m perf.quick [--seconds 75] [--strict] [--json]
    python -m perf.quick --store [--passes 3]

Needs root. Rounds of short samples (quick_figures.py), interleaved, as many as the time allows; of each round
the ratios, which depend less on the machine than times do. They are compared with results/quick.json by the
rule of comparison.py, and a table says what is worse. The exit status is 0 whatever it says, for a noisy
machine is nobody's fault; with --strict it is 1 when something could not be measured. The measuring is done
by a process of its own, which is ended, with all that it has made, when it takes too long.

--store measures so many times, each in a fresh process, and stores the rounds of all: so the stored spread
has in it what differs from one start to the next.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layer45.errors import Layer45Error
from perf import bounded, comparison, lab, record
from perf.quick_figures import FIGURES, Sample, everything

LEAST_ROUNDS = 3
OVERHEAD_S = 40.0  # to start and to end all, on a slow machine; also one round
BUSY = 1.0  # load average
Ratios = dict[str, list[float]]


def measure(seconds: float, tell: Callable[[Ratios, list[str]], None]) -> None:
    """Rounds; after each, `tell` gets the ratios so far by figure, and what went wrong.

    The first round only warms up.
    """
    found: Ratios = {figure.name: [] for figure in FIGURES}
    wrong: list[str] = []
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, everything(Path(folder)) as samples:
        turn, longest = 0, 0.0
        while turn <= LEAST_ROUNDS or time.monotonic() + longest < until:
            begun = time.monotonic()
            values = one_round(samples, turn, wrong)
            for figure in FIGURES:
                if turn and figure.needs <= set(values):
                    found[figure.name].append(figure.of(values))
            tell(found, wrong)
            longest, turn = max(longest, time.monotonic() - begun), turn + 1


def one_round(samples: Mapping[str, Sample], turn: int, wrong: list[str]) -> dict[str, float]:
    """All samples but those that failed."""
    values = {}
    for name in lab.turned(samples, turn):
        try:
            values[name] = samples[name]()
        except lab.BenchmarkError as error:
            wrong.append(f"round {turn}, {name}: {error}")
    return values


def measured(seconds: float) -> tuple[Ratios, list[str]]:
    """As measure, by a process that cannot hang for ever, and leaves nothing behind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratios.json"
        argv = [sys.executable, "-m", "perf.quick", "--into", str(path), "--seconds", str(seconds)]
        status = bounded.run(argv, seconds + OVERHEAD_S)
        found = json.loads(path.read_text()) if path.exists() else {"ratios": {}, "wrong": []}
    if status is None:
        found["wrong"].append(f"not done after {seconds + OVERHEAD_S:g} s, and ended")
    elif status:
        found["wrong"].append(f"the measuring process ended with status {status}")
    return found["ratios"], found["wrong"]


def inside(path: Path, seconds: float) -> int:
    """What the process of its own does: the file has the rounds so far. The exit status."""

    def tell(found: Ratios, wrong: list[str]) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"ratios": found, "wrong": wrong}))
        fresh.replace(path)

    with bounded.ended_by_signals():
        try:
            measure(seconds, tell)
        except (lab.BenchmarkError, Layer45Error, RuntimeError, OSError, subprocess.SubprocessError) as error:
            print(f"perf: quick: {error}", file=sys.stderr)
            return 1
    return 0


def stored() -> dict[str, Any]:
    """What the file says; nothing without one."""
    path = record.RESULTS / "quick.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def store(seconds: float, passes: int) -> bool:
    """Measure and write; False, and nothing written, if something could not be measured."""
    rounds: Ratios = {figure.name: [] for figure in FIGURES}
    for number in range(passes):
        print(f"perf: quick: pass {number + 1} of {passes}", flush=True)
        ratios, wrong = measured(seconds)
        tell(wrong)
        for name, series in ratios.items():
            rounds[name] += series
    if min(map(len, rounds.values())) < comparison.FEWEST_ROUNDS:
        print("perf: quick: something could not be measured; nothing is stored", file=sys.stderr)
        return False
    record.table(rounds, "")
    figures = {name: record.summary(series) for name, series in rounds.items()}
    record.write("quick", "ratios that the regression guard compares", {"figures": figures, "rounds": rounds})
    record.plot("quick", "Ratios that the regression guard compares", "ratio", rounds)
    return True


def tell(wrong: list[str]) -> None:
    """Each on a line."""
    for line in wrong:
        print(f"perf: quick: not counted: {line}", file=sys.stderr)


def guard(seconds: float, strict: bool, as_json: bool) -> int:
    """Measure, compare, print. The exit status."""
    before, busy = stored(), os.getloadavg()[0]
    ratios, wrong = measured(seconds)
    tell(wrong)
    more = {figure.name: figure.more_is_better for figure in FIGURES}
    lines = comparison.compare(ratios, before.get("rounds", {}), more)
    if as_json:
        print(json.dumps({"figures": [asdict(line) for line in lines], "not_counted": wrong}, indent=2))
    else:
        print("\n".join(comparison.table(lines)))
        print(elsewhere(before))
        if busy > BUSY:
            print(f"the machine was busy: load average {busy:.1f} at the start")
        print(f"perf: quick: {comparison.summary(lines)}")
    return 1 if strict and any(line.verdict == "not measured" for line in lines) else 0


def elsewhere(before: Mapping[str, Any]) -> str:
    """With what the comparison is."""
    if not before:
        return "nothing is stored: python -m perf.quick --store"
    there, here = before["machine"], record.machine()
    differs = [f"{key} {there[key]} there" for key in ("cpu", "cores", "kernel") if there[key] != here[key]]
    other = f"; on another machine, so ratios may differ: {', '.join(differs)}" if differs else ""
    return f"stored {before['when']} at commit {before['commit']}{other}"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="perf.quick", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=75, help="for the rounds; start and end come on top")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if something was not measured")
    parser.add_argument("--json", action="store_true", help="the comparison as one document")
    parser.add_argument("--store", action="store_true", help="write what is measured: the next are compared")
    parser.add_argument("--passes", type=int, default=3, help="with --store: fresh starts")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """The exit status."""
    options = arguments()
    if options.into:
        return inside(options.into, options.seconds)
    if os.geteuid():
        print("perf: quick: not measured: it needs root", file=sys.stderr)
        return 1 if options.strict or options.store else 0
    if options.store:
        return 0 if store(options.seconds, options.passes) else 1
    return guard(options.seconds, options.strict, options.json)


if __name__ == "__main__":
    sys.exit(main())
