"""`python -m tests.bench.flips_real`: how often prediction intervals of flip rates hold real runs of the demo model;
writes its rows into tests/bench/flips.csv.

No model is run: the runs are those of tests/bench/flips_runs.jsonl, which `tests.bench.flips_runs` left. Each is
predicted, by what `hemostat flips predict` predicts with, from the others without

- `recipe_left_out`: those of its recipe, on whatever task;
- `task_left_out`: those of its task;
- `both_left_out`: those of its recipe, and those of its task.

Predictions that are said to be outside of what has been seen are counted apart. An interval of 50 % is counted beside
that of 95 %: so few runs hardly tell by the latter alone whether intervals are too wide. Predictions that are left out
together share what they were learned from, and runs of a task its effect, so that the intervals of the shares, which
take them for independent (Clopper and Pearson), are too narrow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from scipy import stats

from tests.bench.flips_runs import BENCH, Told, read
from tests.bench.rows import Row, write
from tests.bench.rows import read as read_rows
from workers.analysis.flips.prediction import Predictor, Status
from workers.analysis.flips.runs import Run

RESULTS: Final = Path(__file__).with_name("flips.csv")
LEVELS: Final = (50, 95)
# Whether the second run is not to be learned from where the first one is predicted.
LEFT_OUT: Final[Mapping[str, Callable[[Run, Run], bool]]] = {
    "recipe_left_out": lambda run, other: other.candidate == run.candidate,
    "task_left_out": lambda run, other: other.identity == run.identity,
    "both_left_out": lambda run, other: other.candidate == run.candidate or other.identity == run.identity,
}


@dataclass(frozen=True)
class Predicted:
    """A run, and what was predicted of it from others: the median, and by level in percent an interval, and how often
    it would hold the run if the prediction were right. That is more than its level: rates of n items go in steps."""

    run: Run
    status: Status
    median: float
    intervals: Mapping[int, tuple[float, float]]
    expected: Mapping[int, float]

    def held(self, level: int) -> bool:
        """Whether the interval holds the rate that was found."""
        low, high = self.intervals[level]
        return low <= self.run.rate <= high

    def width(self, level: int) -> float:
        """Of the interval."""
        low, high = self.intervals[level]
        return high - low

    @property
    def tosses(self) -> float:
        """Width of a 95 % interval of as many coin tosses at the median, which are left where a rate is known."""
        low, high = stats.binom.ppf([0.025, 0.975], self.run.items, self.median) / self.run.items
        return float(high - low)


def predicted(runs: Sequence[Run], left_out: Callable[[Run, Run], bool]) -> Iterator[Predicted]:
    """Each run from those that are not left out for it."""
    known: dict[tuple[Run, ...], Predictor] = {}
    for run in runs:
        others = tuple(other for other in runs if not left_out(run, other))
        predictor = known.setdefault(others, Predictor(others))
        told = predictor.predict(run.kl, run.items, task=run.identity, reference=run.reference)
        intervals, expected = {}, {}
        drawn = predictor.model.draws(run.kl, run.items, task=run.identity)
        for level in LEVELS:
            low, median, high = predictor.model.predict(run.kl, run.items, task=run.identity, level=level / 100)
            intervals[level] = (low, high)
            expected[level] = float(np.mean((low <= drawn) & (drawn <= high)))
        yield Predicted(run, told.status, median, intervals, expected)


def by_case(case: str, found: Sequence[Predicted]) -> dict[str, list[Predicted]]:
    """In all, by task, and what is said to be outside, which is in none of the others. Empty groups are not told."""
    inside = [one for one in found if one.status != "outside"]
    groups = {case: inside}
    for task in sorted({one.run.task for one in inside}):
        groups[f"{case}_{task}"] = [one for one in inside if one.run.task == task]
    groups[f"{case}_outside"] = [one for one in found if one.status == "outside"]
    return {name: group for name, group in groups.items() if group}


def rows_of(case: str, found: Sequence[Predicted]) -> Iterator[Row]:
    """How often the intervals held, how wide they are, and how far off the medians."""
    yield Row(BENCH, case, "predictions", len(found), "count")
    for level in LEVELS:
        held = sum(one.held(level) for one in found)
        low, high = stats.binomtest(held, len(found)).proportion_ci(0.95, method="exact")
        yield Row(BENCH, case, f"held_by_{level}", held, "count")
        yield Row(BENCH, case, f"coverage_of_{level}", held / len(found), "ratio")
        yield Row(BENCH, case, f"expected_of_{level}", float(np.mean([one.expected[level] for one in found])), "ratio")
        yield Row(BENCH, case, f"coverage_of_{level}_low", float(low), "ratio")
        yield Row(BENCH, case, f"coverage_of_{level}_high", float(high), "ratio")
    errors = np.asarray([one.median - one.run.rate for one in found])
    yield Row(BENCH, case, "median_width", float(np.median([one.width(95) for one in found])), "ratio")
    yield Row(BENCH, case, "median_width_of_tosses", float(np.median([one.tosses for one in found])), "ratio")
    yield Row(BENCH, case, "median_absolute_error", float(np.median(np.abs(errors))), "ratio")
    yield Row(BENCH, case, "mean_error", float(np.mean(errors)), "ratio")


def rows(told: Sequence[Told]) -> Iterator[Row]:
    """All rows: of what is predicted, by what is left out, in all and by task, and what is outside apart."""
    (machine,) = {one.machine for one in told}
    runs = [one.run for one in told]
    yield machine
    yield Row(BENCH, "runs", "runs", len(runs), "count")
    yield Row(BENCH, "runs", "recipes", len({one.recipe for one in told}), "count")
    for task in dict.fromkeys(run.task for run in runs):
        yield Row(BENCH, f"runs_{task}", "items", max(run.items for run in runs if run.task == task), "count")
    for case, left_out in LEFT_OUT.items():
        for name, group in by_case(case, list(predicted(runs, left_out))).items():
            yield from rows_of(name, group)


def main() -> None:
    """Writes the rows beside those of the drawn worlds."""
    fresh = list(rows(read()))
    earlier = [row for row in read_rows(RESULTS) if row.bench != BENCH] if RESULTS.is_file() else []
    write(RESULTS, earlier + fresh)
    for row in fresh:
        sys.stdout.write(f"{row.bench},{row.case},{row.metric},{row.value:.6g},{row.unit}\n")


if __name__ == "__main__":
    main()
