"""The demo's picture: what remains of a link's loss behind several codes, in replays and in theory."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from layer45.demo_replay import CODES, DATAGRAMS, Point, judge, measure
from layer45.loss_model import independent_residual, lost_of_block, lost_within

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "#1f77b4", "#d95f02", "#1b9e77"
SHADED = 0.95
LOSSES = np.linspace(0.0001, 0.21, 85)  # of the curves
LOWEST_PERCENT = 0.001


def play(console: Console, live: Point | None, picture: Path) -> None:
    """Writes the picture. live: what packets met that were no replay. Raises DemoError."""
    if find_spec("matplotlib") is None:
        console.print(f"demo: no {picture}: matplotlib is not installed")
        return
    points = measure()
    judge(points)
    draw(points, live, picture)
    what = f"{len(points)} replays of {DATAGRAMS} datagrams lost what theory has"
    console.print(f"demo: {what}: see {picture}", soft_wrap=True)


def draw(points: list[Point], live: Point | None, picture: Path) -> None:
    """Both axes in percent."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.5))
    axes.plot(100 * LOSSES, 100 * LOSSES, "--", color="#555555", label="no FEC")
    for (k, m), colour in zip(CODES, COLOURS, strict=True):
        _draw_theory(axes, k, m, colour)
        found = [each for each in points if (each.k, each.m) == (k, m) and each.lost]
        where = [100 * each.loss for each in found], [100 * each.residual for each in found]
        axes.plot(*where, "o", color=colour, markersize=5)
        axes.plot([], [], "o-", color=colour, markersize=5, label=f"k = {k}, m = {m}: {m / k:.0%} more")
    if live:
        label = f"iperf3 over {live.sources} datagrams, k = {live.k}, m = {live.m}"
        axes.plot(100 * live.loss, 100 * live.residual, "*k", markersize=13, label=label)
    _finish(axes)
    figure.tight_layout()
    figure.savefig(picture, dpi=120)
    pyplot.close(figure)


def _draw_theory(axes: "Axes", k: int, m: int, colour: str) -> None:
    """The curve, and where measurements of it should be."""
    axes.plot(100 * LOSSES, [100 * independent_residual(loss, k, m) for loss in LOSSES], color=colour)
    bounds = [lost_within(lost_of_block(loss, k, m), DATAGRAMS // k, SHADED) for loss in LOSSES]
    least, most = (100 / DATAGRAMS * np.array(side) for side in zip(*bounds, strict=True))
    axes.fill_between(100 * LOSSES, least, most, color=colour, alpha=0.15, linewidth=0)


def _finish(axes: "Axes") -> None:
    axes.set_yscale("log")
    axes.set_xlim(0, 21)
    axes.set_ylim(LOWEST_PERCENT, 40)
    axes.set_xticks(range(0, 21, 2))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("loss of the link, %")
    axes.set_ylabel("loss that remains, %")
    axes.set_title("What remains of a link's loss when m repairs follow each k datagrams")
    lines = (
        "lines: theory, independent losses",
        f"dots: replays of {DATAGRAMS} datagrams",
        f"shaded: where {SHADED:.0%} of such dots should be",
    )
    axes.text(0.4, 28, "\n".join(lines), fontsize=9, va="top")
    axes.grid(which="major", color="#dddddd")
    axes.legend(loc="lower right", fontsize=9)
