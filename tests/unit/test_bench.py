"""`python -m perf`, and `layer45 bench` in front of it: which benchmarks there are, and how they end."""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perf import record
from perf.__main__ import QUICK, question, results, run

ROOT = Path(__file__).parents[2]
TOOLS = {"allocations", "python_callback"}  # programs that benchmarks and tests start


def layer45(*words: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "layer45", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(argv, capture_output=True, text=True, env=environment, cwd="/", check=False)


def test_every_benchmark_is_one_of_all() -> None:
    programs = {path.stem for path in ROOT.glob("perf/*.py") if '== "__main__"' in path.read_text()}
    assert programs - TOOLS - {"__main__"} == set(QUICK)


@pytest.mark.parametrize("name", QUICK)
def test_every_benchmark_asks_a_question(name: str) -> None:
    assert question(name)[-1] in "?."


@pytest.mark.parametrize("name", QUICK)
def test_every_benchmark_leaves_figures_and_a_picture(name: str) -> None:
    text = (ROOT / "perf" / f"{name}.py").read_text()
    assert re.search(rf'record\.write\(\s*"{name}"', text)
    assert "record.plot" in text


def test_the_list_is_one_document() -> None:
    done = layer45("bench", "--list", "--json")
    assert (done.returncode, set(json.loads(done.stdout))) == (0, set(QUICK))


def test_the_list_of_one() -> None:
    assert layer45("bench", "--list", "soak").stdout == f"soak  {question('soak')}\n"


def test_an_unknown_benchmark_is_wrong_use() -> None:
    done = layer45("bench", "speed")
    assert done.returncode == 2
    assert "no benchmark speed" in done.stderr.splitlines()[-1]


def test_wrong_options_of_a_benchmark_are_told() -> None:
    assert not run("streams", ["--rounds", "many"])


def test_results_of_before_are_not_those_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    path = record.write("fec", "what?", {"figure": 1})
    os.utime(path, (1000, 1000))
    assert results(["fec", "soak"], 1001) == {}
    assert results(["fec", "soak"], 1000)["fec"]["figure"] == 1  # type: ignore[index]


def test_a_result_states_machine_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    written = json.loads(record.write("fec", "what?", {}).read_text())
    assert set(written) == {"question", "command", "when", "commit", "machine"}
    assert written["machine"]["kernel"] == os.uname().release
    assert written["command"].startswith("python -m perf.fec")


def test_a_run_that_asks_something_else_leaves_its_results_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    for beside in ("", "reverse"):
        written = record.write("iperf3", "what?", {"figure": beside}, beside)
        assert json.loads(written.read_text())["command"].startswith("python -m perf.iperf3")
        record.plot("iperf3", "how much", "s", {"one": [1.0]}, beside)
    names = {"iperf3.json", "iperf3.png", "iperf3-reverse.json", "iperf3-reverse.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert json.loads((tmp_path / "iperf3.json").read_text())["figure"] == ""


def test_results_have_the_benchmarks_name_where_nothing_else_is_said() -> None:
    parser = argparse.ArgumentParser()
    record.add_option(parser)
    assert parser.parse_args([]).beside == ""


@pytest.mark.parametrize("word", ["../over", "a-b", " "])
def test_results_beside_stay_in_their_directory(word: str) -> None:
    assert not run("iperf3", ["--beside", word])


def test_pictures_are_drawn_of_medians_and_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    record.plot("bars", "how much", "s", {"one": [1.0, 2.0], "other": [3.0]})
    record.plot_over_time("lines", "how much", "MB", {"one": [(0.0, 1.0), (1.0, 2.0)]})
    for name in ("bars", "lines"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
