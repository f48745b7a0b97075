"""Rounds in which what is compared takes turns, so that whatever else the machine does touches all of it.

Cases stand in groups: those of one group are compared, one beside the other within a round. Each round goes
through all groups, and begins each with another case.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from perf import lab, record

Sample = dict[str, float]  # by figure, which is named with its unit


@dataclass
class Rounds:
    """Samples by group and case, one a round; None: it did not count, and not_counted says why."""

    samples: dict[str, dict[str, list[Sample | None]]]
    not_counted: list[str] = field(default_factory=list)

    def together(self, group: str, cases: Iterable[str], figure: str) -> list[list[float]]:
        """A figure of several cases, for each round in which all of them counted."""
        rows = zip(*(self.samples[group].get(case, []) for case in cases), strict=False)
        return [[each[figure] for each in row if each] for row in rows if all(row)]

    def series(self, group: str, figure: str) -> dict[str, list[float]]:
        """A figure by case, of the cases that have it."""
        found = {
            case: [each[figure] for each in runs if each and figure in each]
            for case, runs in self.samples[group].items()
        }
        return {case: values for case, values in found.items() if values}

    def ratios(self, group: str, part: str, whole: str, figure: str) -> list[float]:
        """Of each round in which both counted."""
        return [mine / other for mine, other in self.together(group, (part, whole), figure)]

    def summaries(self) -> dict[str, dict[str, dict[str, dict[str, float | int]]]]:
        """By group, figure and case."""
        return {
            group: {
                figure: {case: record.summary(values) for case, values in self.series(group, figure).items()}
                for figure in self._figures(group)
            }
            for group in self.samples
        }

    def _figures(self, group: str) -> list[str]:
        runs = (run for cases in self.samples[group].values() for run in cases if run)
        return list(dict.fromkeys(figure for run in runs for figure in run))


def measure(groups: Mapping[str, Iterable[str]], rounds: int, sample: Callable[[str, str], Sample]) -> Rounds:
    """sample(group, case), so many rounds of all. A BenchmarkError of it costs one sample, and is told."""
    found = Rounds({group: {case: [] for case in cases} for group, cases in groups.items()})
    for turn in range(rounds):
        for group, runs in found.samples.items():
            for case in lab.turned(runs, turn):
                runs[case].append(_counted(found, f"round {turn}, {group}, {case}", sample, group, case))
    return found


def _counted(
    found: Rounds, name: str, sample: Callable[[str, str], Sample], group: str, case: str
) -> Sample | None:
    try:
        return sample(group, case)
    except lab.BenchmarkError as error:
        found.not_counted.append(f"{name}: {error}")
        print(f"perf: not counted: {found.not_counted[-1]}", flush=True)
        return None
