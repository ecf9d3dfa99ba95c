"""`python -m tests.bench.threshold [CURVES [ANSWERS]]`: intervals and answers where the truth is known; writes
tests/bench/threshold.csv. `python -m tests.bench.threshold again [TEXTS]` draws one cell anew, and its rows alone;
`python -m tests.bench.threshold published` fits the published curves, and writes their rows alone.

`coverage`: the share of 95 % intervals of s0 that hold the true knee, over CURVES curves a case (default 400), of bare
curves and of documents; `other texts` is the cell that was furthest from 95 %, over four times as many texts, none of
them among those of the cell itself. `straight` and `knee`: what `fit_threshold` answers, whole as a sweep and
`hemostat threshold` ask it, over ANSWERS curves a case (default 20), bare ones and such whose documents are known and
have errors that may hang together. Of curves without a knee, *no transition in range* is right; of others it is
*transition*. `published`: the ten published curves under their own bounds, and what was published of them.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from tests.bench.rows import Row, read, replaced, write
from tests.support.knee_documents import Errors, around, curve_of, simulated
from tests.support.knees import RISING, SCENARIOS, Array, Scenario, coverage
from tests.unit.workers.analysis.threshold.curves import CURVES, Published
from workers.analysis.threshold.answer import fit_threshold
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.documents import DocumentLosses, document_interval

# A curve, and the losses of its documents where they are known.
Drawn = tuple[Curve, DocumentLosses | None]
RESULTS = Path(__file__).with_name("threshold.csv")
RESAMPLES = 999
GROWTHS = {"even noise": 0.0, "noise growing threefold": 2.0}
BOUNDS = {"rising": RISING, "no bounds": Bounds()}
POINTS = (8, 12, 20)
DOCUMENTS = (20, 60)
OVER_DOCUMENTS = ("12 points, 0.03, k2 = 0", "15 points, 0.02", "20 points, 0.05")
# The cell that is drawn anew, and how many times as many texts it then has.
AGAIN = ("15 points, 0.02", 20)
TIMES = 4
# Of the texts of all cells, and of those that are drawn anew.
TEXTS, OTHER_TEXTS = 13, 14
SIGMA = 0.03
_NONE = "no transition in range"


def straight_ones(s_N: Array) -> dict[str, Array]:
    """ln y of curves without a knee."""
    return {
        "constant": np.full(len(s_N), 1.7),
        "power law": 2 + 0.3 * np.log(s_N),
        "exponential": 1.5 + 3 * s_N,
        "line 7 to 21": np.log(np.linspace(7.0, 21.0, len(s_N))),
        "line 15 to 85": np.log(np.linspace(15.0, 85.0, len(s_N))),
    }


def straight(s_N: Array, truth_N: Array, growth: float, repeats: int) -> Iterator[Drawn]:
    """Curves around one without a knee; the noise at the last setting is 1 + growth times that at the first."""
    rng = np.random.default_rng(11)
    noise_N = SIGMA * np.linspace(1, 1 + growth, len(s_N))
    for _ in range(repeats):
        yield Curve(s_N, truth_N + noise_N * rng.standard_normal(len(s_N))), None


def straight_documents(s_N: Array, truth_N: Array, errors: Errors, repeats: int) -> Iterator[Drawn]:
    """The same of 20 documents, whose errors at different settings hang together as said."""
    rng = np.random.default_rng(12)
    for _ in range(repeats):
        losses = around(truth_N, errors, DOCUMENTS[0], rng)
        yield curve_of(s_N, losses), losses


def knee_documents(
    scenario: Scenario, documents: int, repeats: int, seed: int = TEXTS
) -> Iterator[tuple[Curve, DocumentLosses]]:
    """Documents whose mean is the scenario's curve."""
    rng = np.random.default_rng(seed)
    for _ in range(repeats):
        losses = simulated(scenario, documents, rng)
        yield curve_of(scenario.s_N, losses), losses


def answers(drawn: Iterable[Drawn], bounds: Bounds) -> Counter[str]:
    """How often each answer is given."""
    return Counter(
        fit_threshold(curve, bounds, documents=losses, seed=seed).answer for seed, (curve, losses) in enumerate(drawn)
    )


def rows_of(bench: str, case: str, found: Counter[str], right: str) -> list[Row]:
    """The share of right answers, and of each."""
    total = found.total()
    sys.stderr.write(f"{bench:9} {case:60} {found[right]} of {total}\n")
    told = [Row(bench, case, answer.replace(" ", "_"), number / total, "ratio") for answer, number in found.items()]
    return [*told, Row(bench, case, "simulations", total, "count")]


def coverage_rows(case: str, share: float, width: float, curves: int) -> list[Row]:
    """The share of intervals that hold the knee, and their median width."""
    sys.stderr.write(f"coverage  {case:60} {share:.3f}, width {width:.3f}\n")
    return [
        Row("coverage", case, "coverage_of_95", share, "ratio"),
        Row("coverage", case, "median_width", width, "ratio"),
        Row("coverage", case, "simulations", curves, "count"),
    ]


def main(curves: int, asked: int) -> None:
    """Draws the curves and writes the CSV."""
    rows = bare(curves, asked) + over_documents(curves, asked) + list(published())
    write(RESULTS, rows)


def bare(curves: int, asked: int) -> list[Row]:
    """Curves of which nothing but the points is known."""
    rows: list[Row] = []
    every: Counter[str] = Counter()
    for noise, growth in GROWTHS.items():
        for name, scenario in SCENARIOS.items():
            noisy, case = replace(scenario, growth=growth), f"{name}, {noise}"
            share, width = coverage(noisy, repeats=curves, resamples=RESAMPLES)
            rows += coverage_rows(case, share, width, curves)
            drawn = ((curve, None) for curve in noisy.curves(asked, seed=1))
            rows += rows_of("knee", case, answers(drawn, noisy.bounds), "transition")
        for points in POINTS:
            s_N = np.linspace(0.1, 0.8, points)
            for name, truth_N in straight_ones(s_N).items():
                for told, bounds in BOUNDS.items():
                    found = answers(straight(s_N, truth_N, growth, asked), bounds)
                    every += found
                    rows += rows_of("straight", f"{name}, {points} points, {told}, {noise}", found, _NONE)
    return rows + rows_of("straight", "all", every, _NONE)


def over_documents(curves: int, asked: int) -> list[Row]:
    """Curves whose documents are known."""
    rows: list[Row] = []
    every: Counter[str] = Counter()
    for name in OVER_DOCUMENTS:
        scenario = SCENARIOS[name]
        for documents in DOCUMENTS:
            case = f"{name}, {documents} documents"
            rows += document_coverage(case, scenario, documents, curves)
            found = answers(knee_documents(scenario, documents, asked), scenario.bounds)
            rows += rows_of("knee", case, found, "transition")
    s_N = np.linspace(0.1, 0.8, 12)
    errors: Errors
    for errors in get_args(Errors):
        for name, truth_N in straight_ones(s_N).items():
            for told, bounds in BOUNDS.items():
                found = answers(straight_documents(s_N, truth_N, errors, asked), bounds)
                every += found
                rows += rows_of("straight", f"{name}, {told}, 20 documents, {errors} errors", found, _NONE)
    return rows + rows_of("straight", "all over documents", every, _NONE) + again(TIMES * curves)


def document_coverage(case: str, scenario: Scenario, documents: int, texts: int, seed: int = TEXTS) -> list[Row]:
    """Coverage of the intervals over documents, of so many texts."""
    limits = [
        document_interval(scenario.s_N, losses, scenario.bounds, seed=place)
        for place, (_, losses) in enumerate(knee_documents(scenario, documents, texts, seed))
    ]
    share = float(np.mean([found.low <= scenario.knee <= found.high for found in limits]))
    return coverage_rows(case, share, float(np.median([one.high - one.low for one in limits])), texts)


def again(texts: int) -> list[Row]:
    """The cell furthest from 95 %, over texts that it has not seen: was it the interval, or the draw?"""
    name, documents = AGAIN
    case = f"{name}, {documents} documents, other texts"
    return document_coverage(case, SCENARIOS[name], documents, texts, OTHER_TEXTS)


def published(curves: Mapping[str, Published] = CURVES) -> Iterator[Row]:
    """Each published curve: its knee and error, those of our fit, the interval, and 1 beside the answer."""
    for name, curve in curves.items():
        found = fit_threshold(curve.curve, curve.bounds)
        numbers = {
            "published_s0": curve.params["s0"],
            "published_log_sse": curve.log_sse,
            "s0": found.fit.s0,
            "log_sse": found.fit.log_sse,
            "s0_low": found.interval.low,
            "s0_high": found.interval.high,
        }
        yield Row("published", name, "points", len(curve.curve), "count")
        yield from (Row("published", name, metric, value, "ratio") for metric, value in numbers.items())
        yield Row("published", name, f"answer_{found.answer.replace(' ', '_')}", 1, "count")


if __name__ == "__main__":
    if sys.argv[1:2] == ["published"]:
        write(RESULTS, replaced(read(RESULTS), list(published())))
        sys.exit()
    if sys.argv[1:2] == ["again"]:
        fresh = again(int(sys.argv[2]) if len(sys.argv) > 2 else TIMES * 400)
        write(RESULTS, replaced(read(RESULTS), fresh))
        sys.exit()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400, int(sys.argv[2]) if len(sys.argv) > 2 else 20)
