"""The regression guard: what its figures are made of, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perf import quick
from perf.quick_figures import FIGURES, Figure, codec, replays

ROOT = Path(__file__).parents[2]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]


def test_a_figure_is_a_ratio_of_two_samples() -> None:
    figure = Figure("x", "ours", "theirs")
    assert (figure.needs, figure.of({"ours": 3.0, "theirs": 2.0})) == ({"ours", "theirs"}, 1.5)


def test_a_figure_can_be_of_what_one_of_many_adds() -> None:
    figure = Figure("x", "sixteen", "none", less="none", parts=16)
    assert figure.of({"sixteen": 116.0, "none": 100.0}) == pytest.approx(0.01)


def test_figures_have_names_of_their_own() -> None:
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


def test_replays_and_the_codec_are_measured(tmp_path: Path) -> None:
    samples = {**replays(tmp_path), **codec()}
    first = {name: sample() for name, sample in samples.items()}  # warms up
    values = {name: sample() for name, sample in samples.items()}
    assert set(first) == set(values)
    assert min(values.values()) > 0
    known = [figure for figure in FIGURES if figure.needs <= set(values)]
    assert len(known) == 13
    assert min(figure.of(values) for figure in known) > 0


def test_a_round_goes_on_without_what_failed() -> None:
    def fails() -> float:
        raise quick.lab.BenchmarkError("a packet was lost")

    wrong: list[str] = []
    assert quick.one_round({"a": lambda: 1.0, "b": fails}, 3, wrong) == {"a": 1.0}
    assert wrong == ["round 3, b: a packet was lost"]


@pytest.mark.parametrize(("options", "status"), [([], 0), (["--strict"], 1), (["--store"], 1)])
def test_without_root_it_says_so_and_fails_only_if_asked_to(options: list[str], status: int) -> None:
    argv = [sys.executable, "-m", "perf.quick", *options]
    unprivileged = [*NOBODY, *argv] if os.geteuid() == 0 else argv
    done = subprocess.run(unprivileged, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (status, "perf: quick: not measured: it needs root\n")


def test_another_machine_is_named() -> None:
    machine = {"cpu": "Other 1", "cores": 64, "kernel": "5.15.0"}
    told = quick.elsewhere({"when": "2026", "commit": "abc", "machine": machine})
    assert told.startswith("stored 2026 at commit abc; on another machine")
    assert "cores 64 there" in told
    assert quick.elsewhere({}).startswith("nothing is stored")
