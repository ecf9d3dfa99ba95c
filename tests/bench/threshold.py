"""`python -m tests.bench.threshold [CURVES [ANSWERS]]`: intervals and answers where the truth is known; writes
tests/bench/threshold.csv.

`coverage`: the share of 95 % intervals of s0 that hold the true knee, over CURVES curves a case (default 400).
`straight` and `knee`: what `fit_threshold` answers, whole as a sweep and `hemostat threshold` ask it, over ANSWERS
curves a case (default 20). Of curves without a knee, *no transition in range* is right; of others, *transition*.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.bench.rows import Row, write
from tests.support.knees import RISING, SCENARIOS, Array, coverage
from workers.diagnosis.threshold.answer import fit_threshold
from workers.diagnosis.threshold.bounds import Bounds
from workers.diagnosis.threshold.curve import Curve

RESULTS = Path(__file__).with_name("threshold.csv")
RESAMPLES = 999
GROWTHS = {"even noise": 0.0, "noise growing threefold": 2.0}
BOUNDS = {"rising": RISING, "no bounds": Bounds()}
S_N = np.linspace(0.1, 0.8, 12)
STRAIGHT: dict[str, Array] = {
    "constant": np.full(12, 1.7),
    "power law": 2 + 0.3 * np.log(S_N),
    "exponential": 1.5 + 3 * S_N,
    "line 7 to 21": np.log(np.linspace(7.0, 21.0, 12)),
    "line 15 to 85": np.log(np.linspace(15.0, 85.0, 12)),
}
SIGMA = 0.03


def straight(truth_N: Array, growth: float, repeats: int) -> Iterator[Curve]:
    """Curves around one without a knee; the noise at the last setting is 1 + growth times that at the first."""
    rng = np.random.default_rng(11)
    noise_N = SIGMA * np.linspace(1, 1 + growth, len(S_N))
    for _ in range(repeats):
        yield Curve(S_N, truth_N + noise_N * rng.standard_normal(len(S_N)))


def answers(curves: Iterable[Curve], bounds: Bounds) -> Counter[str]:
    """How often each answer is given."""
    return Counter(fit_threshold(curve, bounds, seed=seed).answer for seed, curve in enumerate(curves))


def rows_of(bench: str, case: str, found: Counter[str], right: str) -> list[Row]:
    """The share of right answers, and of each."""
    total = found.total()
    sys.stderr.write(f"{bench:9} {case:60} {found[right]} of {total}\n")
    told = [Row(bench, case, answer.replace(" ", "_"), number / total, "ratio") for answer, number in found.items()]
    return [*told, Row(bench, case, "simulations", total, "count")]


def main(curves: int, asked: int) -> None:
    """Draws the curves and writes the CSV."""
    rows: list[Row] = []
    every: Counter[str] = Counter()
    for noise, growth in GROWTHS.items():
        for name, scenario in SCENARIOS.items():
            noisy, case = replace(scenario, growth=growth), f"{name}, {noise}"
            share, width = coverage(noisy, repeats=curves, resamples=RESAMPLES)
            sys.stderr.write(f"coverage  {case:60} {share:.3f}, width {width:.3f}\n")
            rows += [
                Row("coverage", case, "coverage_of_95", share, "ratio"),
                Row("coverage", case, "median_width", width, "ratio"),
                Row("coverage", case, "simulations", curves, "count"),
            ]
            rows += rows_of("knee", case, answers(noisy.curves(asked, seed=1), noisy.bounds), "transition")
        for name, truth_N in STRAIGHT.items():
            for told, bounds in BOUNDS.items():
                found = answers(straight(truth_N, growth, asked), bounds)
                every += found
                rows += rows_of("straight", f"{name}, {told}, {noise}", found, "no transition in range")
    write(RESULTS, rows + rows_of("straight", "all", every, "no transition in range"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400, int(sys.argv[2]) if len(sys.argv) > 2 else 20)
