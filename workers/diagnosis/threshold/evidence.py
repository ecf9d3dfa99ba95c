"""Two questions a fit cannot answer itself: is there a transition at all, and does the form fit?

**Is there a transition?** The published form always has a knee somewhere, on a straight line too. The hypothesis that
there is none is tested three times, as a power law, as an exponential and as a line in y: how much smaller the
published form's sum of squares is, T = SSE(straight)/SSE(published) - 1, against T of curves drawn around the straight
fit. Under the hypothesis the knee does not exist, so no table of F or χ² holds (Davies, Biometrika 74, 1987); the draws
do. A transition is claimed where *all* are rejected: the largest p-value stands.

**Does the form fit?** Residuals of a right form have no order along s. The statistic is that of Stute (Annals of
Statistics 25, 1997), the sum of squares of the running sums of residuals, here over the sum of their squares,
calibrated by drawing curves around the fit and fitting each anew (Stute, González Manteiga and Presedo Quindimil,
Journal of the American Statistical Association 93, 1998).

Draws as in `resampling`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from workers.diagnosis.threshold import published
from workers.diagnosis.threshold.bounds import Bounds
from workers.diagnosis.threshold.curve import ROUNDING, Array, Curve
from workers.diagnosis.threshold.line import NAME, Line
from workers.diagnosis.threshold.resampling import draw, excess, point_variances

RESAMPLES = 1999
_GRID = 96


@dataclass(frozen=True)
class TransitionTest:
    """p-value of each form without transition; the largest one counts."""

    p_values: Mapping[str, float]

    @property
    def p(self) -> float:
        """Of the hypothesis that there is no transition."""
        return max(self.p_values.values())


def transition_test(curve: Curve, bounds: Bounds, *, seed: int = 0, resamples: int = RESAMPLES) -> TransitionTest:
    """Tests power law, exponential and line against the published form under its bounds."""
    search = published.search(curve, bounds)
    designs = search.designs(curve.s_N, search.grid(curve.s_N, size=_GRID))
    count = len(curve)
    _, sse_G = designs.solve(curve.log_N)
    rng = np.random.default_rng(seed)
    p_values = {}

    def tested(straight_sse: float, straight_B: Array, drawn_BN: Array) -> float:
        observed = excess(straight_sse, sse_G.min(), count)
        drawn_B = excess(straight_B, designs.sse(drawn_BN).min(axis=0), count)
        return (1 + int((drawn_B >= observed).sum())) / (resamples + 1)

    for name, x_N in (("power_law", np.log(curve.s_N)), ("exponential", curve.s_N)):
        design_NK = np.column_stack([np.ones(count), x_N])
        basis_NK, _ = np.linalg.qr(design_NK)
        residual_N = curve.log_N - basis_NK @ (basis_NK.T @ curve.log_N)
        drawn_BN = draw(rng, curve.log_N - residual_N, point_variances(residual_N, design_NK), resamples)
        straight_B = ((drawn_BN - (drawn_BN @ basis_NK) @ basis_NK.T) ** 2).sum(axis=1)
        p_values[name] = tested(float((residual_N**2).sum()), straight_B, drawn_BN)
    line = Line(curve.s_N)
    rise, line_sse = line.fit(curve)
    residual_N, slope_N = line.residual(curve), line.slope(np.asarray([rise]))[0]
    variance_N = point_variances(residual_N, np.column_stack([np.ones(count), slope_N]))
    drawn_BN = draw(rng, curve.log_N - residual_N, variance_N, resamples)
    p_values[NAME] = tested(line_sse, line.refitted(drawn_BN, rise), drawn_BN)
    return TransitionTest(p_values)


def lack_of_fit(
    curve: Curve, bounds: Bounds, fit: published.PublishedFit, *, seed: int = 0, resamples: int = RESAMPLES
) -> float | None:
    """p-value of the hypothesis that the published form holds; None with fewer than two spare points."""
    if len(curve) - published.free_coefficients(bounds) < 2:
        return None
    search = published.search(curve, bounds)
    grid_G = search.grid(curve.s_N, size=_GRID)
    designs = search.designs(curve.s_N, np.unique(np.append(grid_G, fit.s0)))
    mean_N = fit.predict(curve.s_N)
    residual_N = curve.log_N - mean_N
    tangent_NK = published.tangents(curve.s_N, fit.b, fit.k1, fit.k2, fit.s0)
    drawn_BN = draw(np.random.default_rng(seed), mean_N, point_variances(residual_N, tangent_NK), resamples)
    design_B, coefficient_BK, _ = designs.best(drawn_BN)
    residual_BN = drawn_BN - np.einsum("bnk,bk->bn", designs.design_GNK[design_B], coefficient_BK)
    observed = float(_order(residual_N[None])[0])
    return (1 + int((_order(residual_BN) >= observed).sum())) / (resamples + 1)


def _order(residual_BN: Array) -> Array:
    """Mean square of the running sums over the mean square of the residuals, rounding added."""
    running_BN = np.cumsum(residual_BN, axis=1)
    return np.asarray((running_BN**2).mean(axis=1) / ((residual_BN**2).mean(axis=1) + ROUNDING**2))
