"""`python -m tests.bench.adaptive`: settings that a sweep chooses against evenly spread ones; writes
tests/bench/adaptive.csv.

Curves of the published form are drawn with a known knee and 1 % noise over 31 settings. Twelve of them are measured,
chosen as a sweep with a budget chooses or evenly spread, and the form is fitted to either: how wide the 95 % interval
of the knee is, how far the knee lies from the true one, and how often the interval holds it.
"""

import sys
from collections.abc import Sequence
from itertools import starmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.bench.rows import Row, write
from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.interval import knee_interval
from workers.diagnosis.sweep.choice import first_look, next_by_knee

RESULTS = Path(__file__).with_name("adaptive.csv")
SETTINGS, BUDGET, NOISE, RESAMPLES = 31, 12, 0.01, 199
S = np.linspace(0.05, 0.8, SETTINGS)
OPEN = Bounds()


def drawn(rng: np.random.Generator) -> tuple[float, NDArray[np.float64]]:
    """A knee and ln y at every setting."""
    knee = rng.uniform(0.25, 0.6)
    below, slope, bend = rng.uniform(0.05, 0.4), rng.uniform(0.5, 4.0), rng.uniform(2.0, 12.0)
    beyond = np.maximum(S - knee, 0.0)
    log_y = 2.5 + below * np.log(np.minimum(S, knee)) + slope * beyond + bend * beyond**2
    return knee, log_y + NOISE * rng.standard_normal(SETTINGS)


def even() -> list[int]:
    """Places of the budget, evenly spread."""
    return sorted({round(index * (SETTINGS - 1) / (BUDGET - 1)) for index in range(BUDGET)})


def adaptive(log_y: NDArray[np.float64]) -> list[int]:
    """Places that a sweep measures."""
    places = first_look(SETTINGS, BUDGET)
    while len(places) < BUDGET:
        place = next_by_knee(S.tolist(), places, log_y[places].tolist(), OPEN)
        if place is None:
            break
        places = sorted([*places, place])
    return places


def found(places: Sequence[int], knee: float, log_y: NDArray[np.float64]) -> tuple[float, float, bool]:
    """(width of the interval, distance of the knee from the true one, whether the interval holds it)."""
    curve = Curve.of(S[places], np.exp(log_y[places]))
    fit = published.fit(curve, OPEN)
    interval = knee_interval(curve, OPEN, fit, resamples=RESAMPLES)
    return interval.high - interval.low, abs(fit.s0 - knee), interval.low <= knee <= interval.high


def main(times: int) -> None:
    """Draws so many curves and writes the CSV."""
    rng = np.random.default_rng(1)
    curves = list(starmap(drawn, [(rng,)] * times))
    rows = []
    for case in ("adaptive", "even"):
        made = [found(adaptive(log_y) if case == "adaptive" else even(), knee, log_y) for knee, log_y in curves]
        width, error, held = (np.array(column, dtype=np.float64) for column in zip(*made, strict=True))
        rows += [
            Row("adaptive", case, "mean_width", float(width.mean()), "ratio"),
            Row("adaptive", case, "median_width", float(np.median(width)), "ratio"),
            Row("adaptive", case, "mean_error", float(error.mean()), "ratio"),
            Row("adaptive", case, "median_error", float(np.median(error)), "ratio"),
            Row("adaptive", case, "coverage_of_95", float(held.mean()), "ratio"),
            Row("adaptive", case, "simulations", times, "count"),
        ]
        sys.stderr.write(f"{case:10} width {width.mean():.3f} error {error.mean():.3f} held {held.mean():.3f}\n")
    write(RESULTS, rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 120)
