"""What a benchmark leaves behind: JSON with every sample, the command and the machine, and a picture."""

import argparse
import contextlib
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def summary(samples: Sequence[float]) -> dict[str, float | int]:
    """Median, quartiles and ends of a series."""
    ordered = sorted(samples)
    lower, median, upper = (
        statistics.quantiles(ordered, n=4, method="inclusive") if len(ordered) > 1 else ordered * 3
    )
    return {
        "median": median,
        "lower_quartile": lower,
        "upper_quartile": upper,
        "least": ordered[0],
        "most": ordered[-1],
        "rounds": len(ordered),
    }


def machine() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return {
        "cpu": cpu.split(":")[-1].strip(),
        "cores": len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*"))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": os.getloadavg(),  # at the end
    }


def machine_line() -> str:
    """The same in one line, for a picture."""
    known = machine()
    return f"{known['cpu']}, {known['cores']} cores, Linux {known['kernel']}"


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", RESULTS.parent, "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def add_option(parser: argparse.ArgumentParser) -> None:
    """--beside, for a benchmark that answers more than one run can ask."""
    parser.add_argument(
        "--beside", default="", type=_word, metavar="WORD", help="results go to NAME-WORD, not to NAME"
    )


def _word(text: str) -> str:
    if not re.fullmatch(r"\w*", text):
        raise argparse.ArgumentTypeError(f"expected letters and digits, got {text!r}")
    return text


def _results(name: str, beside: str, kind: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    return RESULTS / f"{name}{f'-{beside}' if beside else ''}.{kind}"


def write(name: str, question: str, body: Mapping[str, Any], beside: str = "") -> Path:
    """Write results/NAME.json, or NAME-BESIDE.json; body holds the figures."""
    path = _results(name, beside, "json")
    content = {
        "question": question,
        "command": shlex.join(["python", "-m", f"perf.{name}", *sys.argv[1:]]),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "machine": machine(),
        **body,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def plot(name: str, title: str, unit: str, series: Mapping[str, Sequence[float]], beside: str = "") -> None:
    """Draw results/NAME.png, or NAME-BESIDE.png: a bar at each median, a dot for each sample.

    Without matplotlib: nothing.
    """
    with picture(name, title, 0.6 * len(series) + 1.4, beside) as axes:
        if axes is None:
            return
        names = list(series)[::-1]
        axes.barh(names, [statistics.median(series[each]) for each in names], color="#9ab8d4")
        for place, each in enumerate(names):
            axes.plot(series[each], [place] * len(series[each]), "k.", markersize=4)
        axes.set_xlabel(unit)


def plot_over_time(
    name: str, title: str, unit: str, series: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """Draw results/NAME.png: a line through the (seconds, value) of each. Without matplotlib: nothing."""
    with picture(name, title, 4.0) as axes:
        if axes is None:
            return
        for each, points in series.items():
            axes.plot(*zip(*points, strict=True), label=each, linewidth=1)
        axes.set_xlabel("seconds")
        axes.set_ylabel(unit)
        axes.set_ylim(bottom=0)
        axes.legend()


@contextlib.contextmanager
def picture(name: str, title: str, height_inches: float, beside: str = "") -> Iterator[Any]:
    """Axes to draw on; results/NAME.png, or NAME-BESIDE.png, at the end. None without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print(f"perf: no {name}.png, matplotlib is not installed", file=sys.stderr)
        yield None
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, height_inches))
    yield axes
    axes.set_title(f"{title}\n{machine_line()}", fontsize=10)
    figure.tight_layout()
    figure.savefig(_results(name, beside, "png"), dpi=120)
    pyplot.close(figure)


def verdict(name: str, found: float, target: float, met: bool) -> None:
    """Print a figure beside what it should be."""
    print(f"{name}: {found}, target {target}: {'met' if met else 'MISSED'}")


def table(rows: Mapping[str, Sequence[float]], unit: str, baseline: str = "") -> None:
    """Print medians and quartiles, and the ratio to a baseline of the same run."""
    width = max(map(len, rows))
    base = statistics.median(rows[baseline]) if baseline in rows else None
    for name, samples in rows.items():
        figures = summary(samples)
        ratio = f"  x{figures['median'] / base:.3f} of {baseline}" if base else ""
        spread = f"[{figures['lower_quartile']:.3f} .. {figures['upper_quartile']:.3f}]"
        print(f"{name:<{width}}  {figures['median']:9.3f} {unit} {spread}{ratio}")
