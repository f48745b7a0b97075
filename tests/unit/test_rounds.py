"""Rounds of a benchmark: who begins, what is compared with what, what a sample that does not count costs."""

import pytest

from perf import lab, rounds
from perf.rounds import Rounds, Sample

GROUPS = {"tcp": ["direct", "ours"], "udp": ["direct"]}


def test_each_round_begins_with_another_case() -> None:
    asked = []

    def sample(group: str, case: str) -> Sample:
        asked.append((group, case))
        return {"rate": 1.0}

    rounds.measure(GROUPS, 2, sample)
    first = [("tcp", "direct"), ("tcp", "ours"), ("udp", "direct")]
    assert asked == [*first, ("tcp", "ours"), ("tcp", "direct"), ("udp", "direct")]


def test_a_sample_that_does_not_count_costs_its_round_only(capsys: pytest.CaptureFixture[str]) -> None:
    rates = iter([8.0, 4.0, 1.0, lab.BenchmarkError("lost"), 10.0, 1.0, 6.0, 3.0, 1.0])

    def sample(group: str, case: str) -> Sample:
        rate = next(rates)
        if isinstance(rate, lab.BenchmarkError):
            raise rate
        return {"rate": rate}

    found = rounds.measure(GROUPS, 3, sample)
    assert found.not_counted == ["round 1, tcp, ours: lost"]
    assert "not counted: round 1, tcp, ours: lost" in capsys.readouterr().out
    assert found.series("tcp", "rate") == {"direct": [8.0, 10.0, 6.0], "ours": [4.0, 3.0]}
    assert found.ratios("tcp", "ours", "direct", "rate") == [0.5, 0.5]


def test_another_error_ends_the_benchmark() -> None:
    def sample(group: str, case: str) -> Sample:
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        rounds.measure(GROUPS, 1, sample)


FOUND = Rounds({"idle": {"a": [{"us": 2.0}, None, {"us": 4.0}], "b": [{"us": 1.0, "more": 5.0}] * 3}})


def test_what_is_compared_was_measured_in_one_round() -> None:
    assert FOUND.together("idle", ("a", "b"), "us") == [[2.0, 1.0], [4.0, 1.0]]
    assert FOUND.together("idle", ("a", "absent"), "us") == []


def test_a_figure_is_of_those_that_have_it() -> None:
    assert FOUND.series("idle", "more") == {"b": [5.0, 5.0, 5.0]}
    summaries = FOUND.summaries()["idle"]
    assert list(summaries) == ["us", "more"]
    assert summaries["us"]["a"]["median"] == 3.0
    assert summaries["us"]["a"]["rounds"] == 2
