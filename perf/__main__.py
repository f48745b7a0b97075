"""The benchmarks, one after another: `python -m perf [NAME…] [--quick]`, from the top of a checkout.

Without a name: all of them. For a benchmark's own options: `python -m perf.NAME --help`.
"""

import argparse
import runpy
import shlex
import sys

QUICK = {
    "fec": ["--rounds", "3", "--milliseconds", "5"],
    "fec_live": ["--rounds", "2", "--seconds", "1"],
    "flows": ["--rounds", "1", "--flows", "1", "1000000", "--replayed", "300000", "--packets", "10000"],
    "handover": ["--rounds", "3", "--seconds", "3"],
    "instances": ["--rounds", "2", "--packets", "20000", "--counts", "1", "8", "16", "--replayed", "1000000"],
    "iperf3": shlex.split(
        '--rounds 1 --seconds 1 --streams 1 --directions forward --only direct "C loop" "look only" scramble'
    ),
    "latency": shlex.split(
        '--rounds 2 --round-trips 3000 --beside idle "load of others" --only direct "C loop" "empty chain"'
    ),
    "loader": ["--rounds", "2", "--policies", "10", "100", "--queries", "30"],
    "packet_rate": ["--rounds", "2", "--seconds", "0.5", "--rates", "20000", "0"],
    "packets": ["--rounds", "2", "--packets", "20000", "--sizes", "64"],
    "policies": ["--rounds", "2", "--packets", "40000", "--policies", "1", "100"],
    "replay": ["--rounds", "2", "--packets", "500000"],
    "syscall_filter": ["--rounds", "3", "--packets", "20000"],
    "unmatched": ["--rounds", "3", "--seconds", "1"],
    "workers": ["--rounds", "1", "--packets", "40000"],
}


def run(name: str, options: list[str]) -> None:
    """One benchmark, as if it had been called by itself."""
    print(f"== {name}", flush=True)
    before, sys.argv = sys.argv, [name, *options]
    try:
        runpy.run_module(f"perf.{name}", run_name="__main__")
    finally:
        sys.argv = before


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m perf", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(QUICK))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a result")
    options = parser.parse_args()
    if unknown := set(options.name) - set(QUICK):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(QUICK)}")
    for name in options.name or QUICK:
        run(name, QUICK[name] if options.quick else [])


if __name__ == "__main__":
    main()
