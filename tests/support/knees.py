"""Simulated curves whose knee is known; `tests.bench.threshold` counts over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.interval import knee_interval

Array = NDArray[np.float64]

RISING = Bounds(b=(0, None), k1=(0, None), k2=(0, None))
NO_SQUARE = Bounds(b=(0, None), k1=(0, None), k2=(0, 0))


@dataclass(frozen=True)
class Scenario:
    """A true curve, the settings it is measured at, the bounds it is fitted under, the noise of ln PPL."""

    name: str
    s_N: Array
    knee: float
    coefficients: tuple[float, float, float, float]  # ln a, b, k1, k2
    bounds: Bounds
    sigma: float
    growth: float = 0.0  # the noise at the last setting is 1 + growth times that at the first

    @property
    def truth(self) -> Array:
        return np.asarray(published.basis(self.s_N, np.array([self.knee]))[0] @ np.array(self.coefficients))

    def curves(self, repeats: int, seed: int) -> Iterator[Curve]:
        rng = np.random.default_rng(seed)
        span_N = (self.s_N - self.s_N[0]) / (self.s_N[-1] - self.s_N[0])
        noise_N = self.sigma * (1 + self.growth * span_N)
        for _ in range(repeats):
            yield Curve(self.s_N, self.truth + noise_N * rng.standard_normal(len(self.s_N)))


_WANDA = (2.07, 0.232, 5.0, 90.0)
_GENTLE = (2.0, 0.23, 8.0, 12.0)
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("8 points, 0.02", np.arange(1, 9) / 10, 0.573, _WANDA, RISING, 0.02),
        Scenario("12 points, 0.03, k2 = 0", np.linspace(0.1, 0.8, 12), 0.4, (2.3, 0.3, 5.0, 0.0), NO_SQUARE, 0.03),
        Scenario("15 points, 0.02", np.linspace(0.1, 0.8, 15), 0.573, _WANDA, RISING, 0.02),
        Scenario("15 points, 0.1", np.linspace(0.1, 0.8, 15), 0.573, _WANDA, RISING, 0.1),
        Scenario("20 points, 0.02, no bounds", np.linspace(0.05, 0.9, 20), 0.55, _GENTLE, Bounds(), 0.02),
        Scenario("20 points, 0.05", np.linspace(0.05, 0.9, 20), 0.55, _GENTLE, RISING, 0.05),
        Scenario("30 points, 0.05, knee on a point", np.linspace(0.1, 0.8, 29), 0.6, _WANDA, RISING, 0.05),
    )
}


def coverage(scenario: Scenario, *, repeats: int, resamples: int, seed: int = 0) -> tuple[float, float]:
    """Share of intervals that hold the true knee, and their median width."""
    held, widths = [], []
    for index, curve in enumerate(scenario.curves(repeats, seed)):
        fit = published.fit(curve, scenario.bounds)
        found = knee_interval(curve, scenario.bounds, fit, seed=index, resamples=resamples)
        held.append(found.low <= scenario.knee <= found.high)
        widths.append(found.high - found.low)
    return float(np.mean(held)), float(np.median(widths))
