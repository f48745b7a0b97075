"""The benchmarks, one after another: `python -m perf [NAME…] [--quick] [--json]`, from the top of a checkout.

Without a name: all of them, but for the guard (quick). For a benchmark's own options: `python -m perf.NAME
--help`. With --json what they print goes to standard error, and their results, as they are in
perf/results/NAME.json, to standard output: one object, by name. The exit status is 1 when one failed.
"""

import argparse
import ast
import contextlib
import json
import runpy
import shlex
import sys
import time
from pathlib import Path

from perf import lab, record

QUICK = {
    "fec": ["--rounds", "3", "--milliseconds", "5"],
    "fec_live": ["--rounds", "2", "--seconds", "1"],
    "flows": ["--rounds", "1", "--flows", "1", "1000000", "--replayed", "300000", "--packets", "10000"],
    "handover": ["--rounds", "3", "--seconds", "3"],
    "instances": ["--rounds", "2", "--packets", "20000", "--counts", "1", "8", "16", "--replayed", "1000000"],
    "iperf3": shlex.split(
        '--rounds 1 --seconds 1 --streams 1 --directions forward --only direct "C loop" "look only" scramble'
    ),
    "kernel": ["--rounds", "2", "--seconds", "1", "--packets", "50000"],
    "latency": shlex.split(
        '--rounds 2 --round-trips 3000 --beside idle "load of others" --only direct "C loop" "empty chain"'
    ),
    "loader": ["--rounds", "2", "--policies", "10", "100", "--queries", "30"],
    "packet_rate": ["--rounds", "2", "--seconds", "0.5", "--rates", "20000", "0"],
    "packets": ["--rounds", "2", "--packets", "20000", "--sizes", "64"],
    "policies": ["--rounds", "2", "--packets", "40000", "--policies", "1", "100"],
    "quick": [],
    "replay": ["--rounds", "2", "--packets", "500000"],
    "soak": ["--seconds", "20", "--change-every", "2", "--restart-every", "8"],
    "streams": ["--rounds", "2", "--megabytes", "100", "--queries", "50"],
    "syscall_filter": ["--rounds", "3", "--packets", "20000"],
    "unmatched": ["--rounds", "3", "--seconds", "1"],
    "workers": ["--rounds", "1", "--packets", "40000"],
}
ONLY_BY_NAME = {"quick"}  # the guard: it compares, and leaves no results


def question(name: str) -> str:
    """What a benchmark asks: the first line of its file."""
    text = (Path(__file__).parent / f"{name}.py").read_text()
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


def run(name: str, options: list[str]) -> bool:
    """One benchmark, as if it had been called by itself; whether it went well."""
    print(f"== {name}", flush=True)
    before, sys.argv = sys.argv, [name, *options]
    try:
        runpy.run_module(f"perf.{name}", run_name="__main__")
    except lab.BenchmarkError as error:
        print(f"perf: {name}: {error}", file=sys.stderr)
        return False
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return not end.code
    finally:
        sys.argv = before
    return True


def results(names: list[str], since: float) -> dict[str, object]:
    """What the benchmarks have written since a time; a failed one nothing, or what it found."""
    paths = {name: record.RESULTS / f"{name}.json" for name in names}
    fresh = {name: path for name, path in paths.items() if path.exists() and path.stat().st_mtime >= since}
    return {name: json.loads(path.read_text()) for name, path in fresh.items()}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m perf", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(QUICK))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a result")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--json", action="store_true", help="the results, or the list, as one document")
    options = parser.parse_args()
    if unknown := set(options.name) - set(QUICK):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(QUICK)}")
    return options


def main() -> int:
    """Run what the command line names. The exit status."""
    options = arguments()
    names = options.name or [name for name in QUICK if name not in ONLY_BY_NAME]
    if options.list:
        listed = {name: question(name) for name in options.name or QUICK}
        width = max(map(len, listed))
        lines = [f"{name:<{width}}  {asked}" for name, asked in listed.items()]
        print(json.dumps(listed, indent=2) if options.json else "\n".join(lines))
        return 0
    begun = time.time()
    with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
        went_well = [run(name, QUICK[name] if options.quick else []) for name in names]
    if options.json:
        print(json.dumps(results(names, begun), indent=2))
    return 0 if all(went_well) else 1


if __name__ == "__main__":
    sys.exit(main())
